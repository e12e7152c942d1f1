//! A session that consumes, and begins again where that ends.

use std::mem;
use std::time::{Duration, Instant};

use lapin::message::Delivery;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::intake::is_large;
use super::{Backoff, Consumer, Error, Session, link, topology};
use crate::endpoints;
use crate::logging::chain;

/// A message that is ready is delivered within milliseconds.
const QUIET: Duration = Duration::from_secs(5);

/// After so many messages of the usual size, large ones are not expected any more.
const ALL_SMALL: usize = 1000;

/// A session that consumes. It publishes nothing: a broker that is short of memory or disk stops reading connections that do, and with
/// them their acknowledgements.
#[derive(Debug)]
pub struct Listening {
    /// The connection.
    pub session: Session,
    /// The deliveries.
    pub consumer: Consumer,
    prefetch: u16,
    /// Messages since the last large one.
    small: usize,
    last_delivery: Instant,
    forgotten: bool,
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
        // What is in the queue may be large, and lapin keeps what is pushed before it has told us of the consumer.
        let consumer = Consumer::asking(&session, topology::BUY_ORDER_QUEUE).await?;
        Ok(Listening {
            session,
            consumer,
            prefetch,
            small: 0,
            last_delivery: Instant::now(),
            forgotten: false,
        })
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
            Err(error) => {
                link::failed(name, &error);
                Listening::report_failure(queue, &error);
            }
        }
        if !backoff.pause(stopping).await {
            return None;
        }
    }
}

impl Listening {
    /// The next deliveries, up to `most`; none where none came within `patience`.
    ///
    /// Does not assume that silence means an empty queue: RabbitMQ 3.10 does not always tell a consumer that its queue was deleted, and one
    /// that was declared again meanwhile never delivers to it (found by the fault suite). So a consumer that gets nothing for a while asks
    /// whether there was something for it.
    ///
    /// # Errors
    /// As [`Consumer::next_batch`]; and [`Error::ConsumerCancelled`] where the queue has messages, or no consumer, and still nothing comes.
    pub async fn next_batch(&mut self, most: usize, patience: Duration) -> Result<Vec<Delivery>, Error> {
        if self.consumer.is_asking() {
            return self.ask(most).await;
        }
        if let Ok(batch) = timeout(patience.min(QUIET), self.consumer.next_batch(most)).await {
            self.last_delivery = Instant::now();
            self.forgotten = false;
            return batch;
        }
        if self.last_delivery.elapsed() >= QUIET {
            self.last_delivery = Instant::now();
            let queue = self.session.depth(topology::BUY_ORDER_QUEUE).await?;
            let is_forgotten = queue.ready > 0 || queue.consumers == 0;
            // Once may be a message that is just on its way.
            if self.forgotten && is_forgotten {
                return Err(Error::ConsumerCancelled);
            }
            self.forgotten = is_forgotten;
        }
        Ok(Vec::new())
    }

    /// Gives back all that is not acknowledged, and asks for each message from now on, until no large ones come any more: the broker would push
    /// a prefetch of them.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn begin_asking(&mut self) -> Result<(), Error> {
        tracing::warn!(
            event = "queue_listener_large_messages",
            queue_name = topology::BUY_ORDER_QUEUE
        );
        let asking = Consumer::asking(&self.session, topology::BUY_ORDER_QUEUE).await?;
        self.small = 0;
        mem::replace(&mut self.consumer, asking).close().await
    }

    async fn ask(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        let batch = self.consumer.ask(most).await?;
        if batch.iter().any(is_large) {
            self.small = 0;
        } else {
            self.small += batch.len();
        }
        if batch.is_empty() || self.small >= ALL_SMALL {
            self.consumer.be_pushed(self.prefetch).await?;
        }
        Ok(batch)
    }

    /// Makes sure that deliveries come while so many are held, not acknowledged, for long.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn make_room_beside(&mut self, held: usize) -> Result<(), Error> {
        self.consumer.make_room(held, self.prefetch).await
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
