//! Consuming in batches: what is ready is taken together, and acknowledged together.

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

use super::intake::{Delegate, Intake, is_large, weight};
use super::{Error, Session, session, topology, within};

const LIMIT: Duration = Duration::from_secs(10);

/// How long a delivery waits for others, to be taken with them: one alone costs its consumer a transaction as many do together.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// A batch that is asked for ends when it holds so much.
const ASKED_BYTES: usize = 1024 * 1024;

/// So many messages are asked for at once, where the last were small. Whatever their sizes, they are in hand together.
const ASKED_TOGETHER: usize = 4;

/// Messages are given back in groups of so many, not one after the other.
const GIVEN_BACK_TOGETHER: usize = 100;

/// Deliveries of a queue, acknowledged by hand: either pushed by the broker as long as there are any, or asked for.
///
/// The broker pushes by number, whatever that makes in bytes; where large messages are about, they are asked for one by one.
#[derive(Debug)]
pub struct Consumer {
    channel: Channel,
    queue_name: ShortString,
    pushed: Option<Pushed>,
    /// Of the next batch. Not in the future that gathers it: what that held when it is dropped would be acknowledged with later ones.
    gathered: Vec<Delivery>,
}

#[derive(Debug)]
struct Pushed {
    consumers: Vec<lapin::Consumer>,
    intake: Arc<Intake>,
    deliveries: UnboundedReceiver<DeliveryResult>,
    /// How many deliveries may wait for their acknowledgement.
    slots: usize,
    /// Bytes of the last batch.
    handed_out: usize,
}

impl Pushed {
    async fn first(&mut self) -> Option<DeliveryResult> {
        loop {
            // A delivery that arrived in the very moment in which lapin was told whom to give them to, it keeps.
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
    /// Begins to consume a queue with at most `prefetch` deliveries not acknowledged. Those that were not dealt with are bounded in bytes as
    /// well: see [`Consumer::overflowed`].
    ///
    /// # Errors
    /// When the connection fails, the queue is away, or the broker hangs.
    pub async fn on(session: &Session, queue_name: &str, prefetch: u16) -> Result<Self, Error> {
        let mut consumer = Self::asking(session, queue_name).await?;
        consumer.be_pushed(prefetch).await?;
        Ok(consumer)
    }

    /// Takes of a queue only what it asks for.
    ///
    /// # Errors
    /// As [`Consumer::on`].
    pub async fn asking(session: &Session, queue_name: &str) -> Result<Self, Error> {
        Ok(Self {
            channel: session.channel().await?,
            queue_name: topology::short(queue_name),
            pushed: None,
            gathered: Vec::new(),
        })
    }

    /// Whether it has to be asked: [`Consumer::ask`], not [`Consumer::next_batch`].
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.pushed.is_none()
    }

    /// From now on, deliveries are pushed, `prefetch` more than before at once.
    ///
    /// # Errors
    /// As [`Consumer::on`].
    pub async fn be_pushed(&mut self, prefetch: u16) -> Result<(), Error> {
        let qos = self.channel.basic_qos(prefetch, BasicQosOptions::default());
        within(LIMIT, "set the prefetch", qos).await?;
        let consume = self.channel.basic_consume(
            self.queue_name.clone(),
            topology::short(""), // the broker chooses a tag
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = within(LIMIT, "consume", consume).await?;
        let pushed = self.pushed.get_or_insert_with(|| {
            let (intake, deliveries) = Intake::new();
            Pushed {
                consumers: Vec::new(),
                intake,
                deliveries,
                slots: 0,
                handed_out: 0,
            }
        });
        consumer.set_delegate(Delegate(Arc::clone(&pushed.intake)));
        pushed.consumers.push(consumer);
        pushed.slots += usize::from(prefetch);
        Ok(())
    }

    /// Makes sure that `prefetch` deliveries are pushed besides those that are held for long.
    ///
    /// # Errors
    /// As [`Consumer::on`].
    pub async fn make_room(&mut self, held: usize, prefetch: u16) -> Result<(), Error> {
        // The first half of the room that is short is no harm; and each consumer costs the broker something.
        let wanted = held + usize::from(prefetch) / 2;
        while self.pushed.as_ref().is_some_and(|pushed| pushed.slots < wanted) {
            self.be_pushed(prefetch).await?;
        }
        Ok(())
    }

    /// Whether more was pushed than may be in hand. What there was no room for was forgotten, and comes again when this is closed.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.pushed
            .as_ref()
            .is_some_and(|pushed| pushed.intake.overflowed())
    }

    /// Waits for a delivery, and takes with it what arrives in the next 5 ms, up to `most`. The batch before it counts as dealt with. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// When the stream fails or ends: what is not acknowledged will come again, on another session.
    pub async fn next_batch(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        let Some(pushed) = &mut self.pushed else {
            return self.ask(most).await;
        };
        pushed.intake.release(mem::take(&mut pushed.handed_out));
        if self.gathered.is_empty() {
            let first = pushed.first().await.transpose()?.flatten();
            self.gathered.push(first.ok_or(Error::ConsumerCancelled)?);
        }
        let rest = sleep(GATHERED_FOR);
        tokio::pin!(rest);
        while self.gathered.len() < most {
            tokio::select! {
                biased;
                delivery = pushed.deliveries.recv() => match delivery {
                    Some(Ok(Some(delivery))) => self.gathered.push(delivery),
                    // What has arrived is still worth the work; that the connection or the consumer has ended, shows at its end.
                    Some(Ok(None) | Err(_)) | None => {
                        pushed.deliveries.close();
                        break;
                    }
                },
                () = &mut rest => break,
            }
        }
        pushed.handed_out = self.gathered.iter().map(weight).sum();
        Ok(mem::take(&mut self.gathered))
    }

    /// Asks for what is ready, up to `most` messages or about a megabyte; none at the end of the queue. Where the future is dropped, messages
    /// may be out of reach until the connection ends.
    ///
    /// # Errors
    /// When the connection fails, the queue is away, or the broker hangs.
    pub async fn ask(&mut self, most: usize) -> Result<Vec<Delivery>, Error> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut together = 1;
        while batch.len() < most && bytes < ASKED_BYTES {
            let gets = (0..together.min(most - batch.len())).map(|_| self.get());
            let answers = within(LIMIT, "get a message", try_join_all(gets)).await?;
            let asked = answers.len();
            let got: Vec<Delivery> = answers.into_iter().flatten().collect();
            bytes += got.iter().map(weight).sum::<usize>();
            together = if got.iter().any(is_large) {
                1
            } else {
                ASKED_TOGETHER
            };
            let is_end = got.len() < asked;
            batch.extend(got);
            if is_end {
                break;
            }
        }
        Ok(batch)
    }

    async fn get(&self) -> Result<Option<Delivery>, lapin::Error> {
        let got = self
            .channel
            .basic_get(self.queue_name.clone(), BasicGetOptions::default())
            .await?;
        Ok(got.map(|message| message.delivery))
    }

    /// Whether the deliveries in hand can still be acknowledged, as far as is known.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.channel.status().connected()
    }

    /// Acknowledges the delivery with this tag alone.
    ///
    /// # Errors
    /// When the connection fails: the delivery will come again.
    pub async fn acknowledge(&self, delivery_tag: u64) -> Result<(), Error> {
        self.ack(delivery_tag, BasicAckOptions { multiple: false }).await
    }

    /// Acknowledges this delivery and every one before it.
    ///
    /// # Errors
    /// When the connection fails: the deliveries will come again.
    pub async fn acknowledge_through(&self, last: u64) -> Result<(), Error> {
        self.ack(last, BasicAckOptions { multiple: true }).await
    }

    /// Gives deliveries back to their queue, which delivers them again at once.
    ///
    /// # Errors
    /// When the connection fails: then they come again anyway.
    pub async fn give_back(&self, delivery_tags: &[u64]) -> Result<(), Error> {
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        for together in delivery_tags.chunks(GIVEN_BACK_TOGETHER) {
            let given_back = together.iter().map(|tag| self.channel.basic_nack(*tag, options));
            within(LIMIT, "give messages back", try_join_all(given_back)).await?;
        }
        Ok(())
    }

    /// Ends the channel. On return the broker has processed every acknowledgement, and gives back what was not acknowledged.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs: then some of it may come again.
    pub async fn close(self) -> Result<(), Error> {
        // RabbitMQ holds acknowledgements of a channel back while more than 32 are not yet applied by a quorum queue, and forgets those
        // when the channel ends (`rabbit_fifo_client`: `unsent_commands`). Both of these are answered by the queue after what it was
        // sent before: after the first it has applied that, after the second the channel knows, and has sent the rest.
        for consumer in self.pushed.iter().flat_map(|pushed| &pushed.consumers) {
            let cancel = self
                .channel
                .basic_cancel(consumer.tag(), BasicCancelOptions::default());
            within(LIMIT, "end a consumer", cancel).await?;
        }
        session::depth(&self.channel, self.queue_name.clone()).await?;
        session::close(&self.channel).await
    }

    async fn ack(&self, delivery_tag: u64, options: BasicAckOptions) -> Result<(), Error> {
        let acknowledge = self.channel.basic_ack(delivery_tag, options);
        within(LIMIT, "acknowledge", acknowledge).await
    }
}
