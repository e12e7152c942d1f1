//! Consuming in batches: what is ready is taken together, and acknowledged together.

use std::mem;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Error, Session, link, session, topology, within};
use crate::endpoints;
use crate::logging::chain;

const LIMIT: Duration = Duration::from_secs(10);

/// A message that is ready is delivered within milliseconds.
const QUIET: Duration = Duration::from_secs(5);

/// How long a delivery waits for others, to be taken with them: one alone costs its consumer a transaction as many do together.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A stream of deliveries, acknowledged by hand.
#[derive(Debug)]
pub struct Consumer {
    channel: Channel,
    deliveries: lapin::Consumer,
    /// Of the next batch. Not in the future that gathers it: what that held when it is dropped would be acknowledged with later ones.
    gathered: Vec<Delivery>,
}

impl Consumer {
    /// Begins to consume a queue with at most `prefetch` deliveries not acknowledged.
    ///
    /// # Errors
    /// When the connection fails, the queue is away, or the broker hangs.
    pub async fn on(session: &Session, queue_name: &str, prefetch: u16) -> Result<Self, Error> {
        let channel = session.channel().await?;
        within(
            LIMIT,
            "set the prefetch",
            channel.basic_qos(prefetch, BasicQosOptions::default()),
        )
        .await?;
        let consume = channel.basic_consume(
            topology::short(queue_name),
            topology::short(""), // the broker chooses a tag
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let deliveries = within(LIMIT, "consume", consume).await?;
        Ok(Self {
            channel,
            deliveries,
            gathered: Vec::new(),
        })
    }

    /// Waits for a delivery, and takes with it what arrives in the next 5 ms, up to `most`. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream fails or ends: what is not acknowledged will come again, on another session.
    pub async fn next_batch(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        if self.gathered.is_empty() {
            let first = self.deliveries.next().await.ok_or(Error::ConsumerCancelled)??;
            self.gathered.push(first);
        }
        let rest = sleep(GATHERED_FOR);
        tokio::pin!(rest);
        while self.gathered.len() < most {
            tokio::select! {
                biased;
                delivery = self.deliveries.next() => match delivery {
                    Some(Ok(delivery)) => self.gathered.push(delivery),
                    // The end of the stream is met again by the next call; what has arrived is still worth the work.
                    Some(Err(_)) | None => break,
                },
                () = &mut rest => break,
            }
        }
        Ok(mem::take(&mut self.gathered))
    }

    /// Whether the deliveries in hand can still be acknowledged, as far as is known.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.channel.status().connected()
    }

    /// Acknowledges this delivery alone.
    ///
    /// # Errors
    /// When the connection fails: the delivery will come again.
    pub async fn acknowledge(&self, delivery: &Delivery) -> Result<(), Error> {
        self.ack(delivery, BasicAckOptions { multiple: false }).await
    }

    /// Acknowledges this delivery and every one before it.
    ///
    /// # Errors
    /// When the connection fails: the deliveries will come again.
    pub async fn acknowledge_through(&self, last: &Delivery) -> Result<(), Error> {
        self.ack(last, BasicAckOptions { multiple: true }).await
    }

    /// Ends the channel. On return the broker has processed every acknowledgement, and gives back what was not acknowledged.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs: then some of it may come again.
    pub async fn close(self) -> Result<(), Error> {
        // RabbitMQ holds acknowledgements of a channel back while more than 32 are not yet applied by a quorum queue, and forgets those
        // when the channel ends (`rabbit_fifo_client`: `unsent_commands`). Both of these are answered by the queue after what it was
        // sent before: after the first it has applied that, after the second the channel knows, and has sent the rest.
        let cancel = self
            .channel
            .basic_cancel(self.deliveries.tag(), BasicCancelOptions::default());
        within(LIMIT, "end a consumer", cancel).await?;
        session::depth(&self.channel, self.deliveries.queue()).await?;
        session::close(&self.channel).await
    }

    async fn ack(&self, delivery: &Delivery, options: BasicAckOptions) -> Result<(), Error> {
        let acknowledge = self.channel.basic_ack(delivery.delivery_tag, options);
        within(LIMIT, "acknowledge", acknowledge).await
    }
}

/// A session that consumes. It publishes nothing: a broker that is short of memory or disk stops reading connections that do, and with
/// them their acknowledgements.
#[derive(Debug)]
pub struct Listening {
    /// The connection.
    pub session: Session,
    /// The deliveries.
    pub consumer: Consumer,
}

/// Connects until it succeeds, with an event per try; nothing when the process was asked to stop.
pub async fn listen(
    queue: &endpoints::Queue,
    name: &str,
    prefetch: u16,
    backoff: &mut Backoff,
    stopping: &CancellationToken,
) -> Option<Listening> {
    let attempt = async || -> Result<Listening, Error> {
        let session = Session::open(queue, name).await?;
        let consumer = Consumer::on(&session, topology::BUY_ORDER_QUEUE, prefetch).await?;
        Ok(Listening { session, consumer })
    };
    link::wanted(name);
    loop {
        match stopping.run_until_cancelled(attempt()).await? {
            Ok(listening) => {
                link::up(name, listening.session.status());
                tracing::info!(
                    event = "queue_listener_starting_consumption",
                    queue_name = topology::BUY_ORDER_QUEUE
                );
                return Some(listening);
            }
            Err(error) => Listening::report_failure(queue, &error),
        }
        if !backoff.pause(stopping).await {
            return None;
        }
    }
}

impl Listening {
    /// As [`Consumer::next_batch`], but does not take silence for peace: RabbitMQ 3.10 does not always tell a consumer that its queue was
    /// deleted, and one that was declared again meanwhile never delivers to it (found by the fault suite). So a consumer that gets nothing
    /// for a while asks whether there was something for it.
    ///
    /// # Errors
    /// As there; and [`Error::ConsumerCancelled`] where the queue has messages, or no consumer, and still nothing comes.
    pub async fn next_batch(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        let mut forgotten = false;
        loop {
            if let Ok(batch) = timeout(QUIET, self.consumer.next_batch(most)).await {
                return batch;
            }
            let queue = self.session.depth(topology::BUY_ORDER_QUEUE).await?;
            let is_forgotten = queue.ready > 0 || queue.consumers == 0;
            // Once may be a message that is just on its way.
            if forgotten && is_forgotten {
                return Err(Error::ConsumerCancelled);
            }
            forgotten = is_forgotten;
        }
    }

    /// Ends it in order: what was acknowledged does not come again, unless the connection fails just now.
    pub async fn close(self) {
        if let Err(error) = self.consumer.close().await {
            tracing::warn!(error = chain(&error), "the last acknowledgements may be lost");
        }
        self.session.close().await;
    }

    /// The event of a connection that could not be made, or was lost.
    pub fn report_failure(queue: &endpoints::Queue, error: &Error) {
        tracing::warn!(
            event = "queue_listener_failed_to_connect",
            queue_host = queue.host,
            queue_port = queue.port,
            queue_name = topology::BUY_ORDER_QUEUE,
            error = chain(error)
        );
    }
}
