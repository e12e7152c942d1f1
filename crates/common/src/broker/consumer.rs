//! Consuming in batches: what is ready is taken together, and acknowledged together.

use std::future::ready;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::select_all;
use lapin::Channel;
use lapin::message::{Delivery, DeliveryResult};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::intake::{Intake, is_large, weight};
use super::{Error, Session, in_time, session, topology};

/// How long a delivery waits for others: a transaction for one alone costs as much as for many.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A pulled batch ends when it holds so much.
const MAX_PULLED_BYTES: usize = 1024 * 1024;

/// How many messages are requested together while they are small. All of them are in memory together, whatever their sizes.
const PULLED_TOGETHER: usize = 4;

/// How many messages are requeued together.
const REQUEUED_TOGETHER: usize = 100;

/// Deliveries of a queue, acknowledged by hand: either pushed by the broker, or pulled.
///
/// The broker pushes by number, whatever that makes in bytes; so large messages are pulled.
///
/// # Errors
/// Every method that asks the broker fails when the connection fails, the queue is missing, or the broker hangs: then what is not acknowledged
/// comes again, and what was just acknowledged may.
#[derive(Debug)]
pub struct Consumer {
    channel: Channel,
    queue_name: ShortString,
    pushed: Option<Pushed>,
    /// Part of the next batch. It is kept here and not in the future that gathers it: if that future is dropped, deliveries in it would be
    /// lost, and acknowledged with later ones.
    gathered: Vec<Delivery>,
}

#[derive(Debug)]
struct Pushed {
    consumers: Vec<lapin::Consumer>,
    intake: Arc<Intake>,
    deliveries: UnboundedReceiver<DeliveryResult>,
    /// The sum of the prefetches.
    slots: usize,
    /// Bytes of the last batch.
    batch_bytes: usize,
}

impl Pushed {
    async fn first(&mut self) -> Option<DeliveryResult> {
        loop {
            // lapin keeps a delivery that arrived just before the delegate was set.
            let kept = select_all(&mut self.consumers);
            tokio::pin!(kept);
            tokio::select! {
                biased;
                delivery = self.deliveries.recv() => return delivery,
                Some(delivery) = kept.next() => self.intake.take(delivery.map(Some)),
            }
        }
    }
}

impl Consumer {
    /// Only pulls, until [`Consumer::subscribe`] is called.
    pub async fn pulling(session: &Session, queue_name: &str) -> Result<Self, Error> {
        Ok(Self {
            channel: session.channel().await?,
            queue_name: topology::short(queue_name),
            pushed: None,
            gathered: Vec::new(),
        })
    }

    /// Whether batches come from [`Consumer::pull`], not from [`Consumer::next_batch`].
    #[must_use]
    pub fn is_pulling(&self) -> bool {
        self.pushed.is_none()
    }

    /// From now on the broker pushes, up to `prefetch` unacknowledged deliveries more than before. Those that are not processed are bounded in
    /// bytes as well: see [`Consumer::overflowed`].
    pub async fn subscribe(&mut self, prefetch: u16) -> Result<(), Error> {
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        in_time("set the prefetch", qos).await?;
        let consume = self.channel.basic_consume(
            self.queue_name.clone(),
            topology::short(""), // the broker chooses a tag
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = in_time("consume", consume).await?;
        let pushed = self.pushed.get_or_insert_with(|| {
            let (intake, deliveries) = Intake::new();
            Pushed {
                consumers: Vec::new(),
                intake,
                deliveries,
                slots: 0,
                batch_bytes: 0,
            }
        });
        let intake = Arc::clone(&pushed.intake);
        consumer.set_delegate(move |delivery| {
            intake.take(delivery);
            ready(())
        });
        pushed.consumers.push(consumer);
        pushed.slots += usize::from(prefetch);
        Ok(())
    }

    /// Lets the broker push about `prefetch` deliveries besides the `held` ones that stay unacknowledged for long.
    pub async fn make_room(&mut self, held: usize, prefetch: u16) -> Result<(), Error> {
        // Half a prefetch is enough, and each consumer costs the broker something.
        let wanted = held + usize::from(prefetch) / 2;
        while self.pushed.as_ref().is_some_and(|pushed| pushed.slots < wanted) {
            self.subscribe(prefetch).await?;
        }
        Ok(())
    }

    /// Whether more bytes were pushed than the limit allows. The rest was dropped, and is delivered again when this consumer is closed.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.pushed
            .as_ref()
            .is_some_and(|pushed| pushed.intake.overflowed())
    }

    /// Waits for a delivery, and takes with it what arrives in the next 5 ms, up to `max`. The batch before it counts as processed. Dropping
    /// the future loses nothing.
    pub async fn next_batch(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        let Some(pushed) = &mut self.pushed else {
            return self.pull(max).await;
        };
        pushed.intake.release(mem::take(&mut pushed.batch_bytes));
        if self.gathered.is_empty() {
            let first = pushed.first().await.transpose()?.flatten();
            self.gathered.push(first.ok_or(Error::ConsumerCancelled)?);
        }
        let rest = sleep(GATHERED_FOR);
        tokio::pin!(rest);
        while self.gathered.len() < max {
            tokio::select! {
                biased;
                delivery = pushed.deliveries.recv() => match delivery {
                    Some(Ok(Some(delivery))) => self.gathered.push(delivery),
                    // The batch so far is still returned; the next call reports that the connection or the consumer has ended.
                    Some(Ok(None) | Err(_)) | None => {
                        pushed.deliveries.close();
                        break;
                    }
                },
                () = &mut rest => break,
            }
        }
        pushed.batch_bytes = self.gathered.iter().map(weight).sum();
        Ok(mem::take(&mut self.gathered))
    }

    /// Pulls what is ready, up to `max` messages or about a megabyte; none at the end of the queue. If the future is dropped, some messages
    /// stay unacknowledged until the connection ends.
    pub async fn pull(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut together = 1;
        while batch.len() < max && bytes < MAX_PULLED_BYTES {
            let requested = together.min(max - batch.len());
            let gets = (0..requested).map(|_| {
                let options = BasicGetOptions::default();
                self.channel.basic_get(self.queue_name.clone(), options)
            });
            let answers = in_time("get a message", try_join_all(gets)).await?;
            let messages = answers.into_iter().flatten();
            let got: Vec<Delivery> = messages.map(|message| message.delivery).collect();
            bytes += got.iter().map(weight).sum::<usize>();
            together = if got.iter().any(is_large) {
                1
            } else {
                PULLED_TOGETHER
            };
            let is_end = got.len() < requested;
            batch.extend(got);
            if is_end {
                break;
            }
        }
        Ok(batch)
    }

    /// Whether deliveries can still be acknowledged, as far as is known.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.channel.status().connected()
    }

    /// Acknowledges the delivery with this tag alone.
    pub async fn acknowledge(&self, delivery_tag: u64) -> Result<(), Error> {
        self.ack(delivery_tag, false).await
    }

    /// Acknowledges this delivery and every one before it.
    pub async fn acknowledge_through(&self, last: u64) -> Result<(), Error> {
        self.ack(last, true).await
    }

    /// Requeues deliveries. The queue delivers them again at once.
    pub async fn requeue(&self, delivery_tags: &[u64]) -> Result<(), Error> {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        for together in delivery_tags.chunks(REQUEUED_TOGETHER) {
            let requeued = together.iter().map(|tag| self.channel.basic_nack(*tag, options));
            in_time("requeue messages", try_join_all(requeued)).await?;
        }
        Ok(())
    }

    /// Ends the channel. On return the broker has processed every acknowledgement, and requeues what was not acknowledged.
    pub async fn close(self) -> Result<(), Error> {
        // RabbitMQ holds acknowledgements of a channel back while a quorum queue has more than 32 to apply, and loses them when the channel
        // ends (`rabbit_fifo_client`: `unsent_commands`). The queue answers both requests below in order: when it answers the first it has
        // applied what it was sent, and when it answers the second the channel has sent the rest.
        for consumer in self.pushed.iter().flat_map(|pushed| &pushed.consumers) {
            let cancel = self
                .channel
                .basic_cancel(consumer.tag(), BasicCancelOptions::default());
            in_time("end a consumer", cancel).await?;
        }
        session::depth(&self.channel, self.queue_name.clone()).await?;
        session::close(&self.channel).await
    }

    async fn ack(&self, delivery_tag: u64, multiple: bool) -> Result<(), Error> {
        let acknowledge = self.channel.basic_ack(delivery_tag, BasicAckOptions { multiple });
        in_time("acknowledge", acknowledge).await
    }
}
