//! A consumer that notices when its queue was lost, and that changes between push and pull by the size of the messages.

use std::mem;
use std::time::{Duration, Instant};

use lapin::message::Delivery;
use tokio::time::timeout;

use super::intake::is_large;
use super::{Consumer, Error, Session};
use crate::logging::chain;

/// A message that is ready is delivered within milliseconds.
const QUIET: Duration = Duration::from_secs(5);

/// After so many small messages the listener lets the broker push. Pulling costs a round trip for every few messages, so a backlog behind a
/// slow network or a busy broker would take long.
const SMALL_IN_A_ROW: usize = 100;

/// A session that consumes a queue. It begins by pulling: the queue may hold large messages, and what is pushed before lapin has its delegate
/// is kept in memory by lapin, without a limit.
#[derive(Debug)]
pub struct Listener {
    /// The connection.
    pub session: Session,
    /// The deliveries.
    pub consumer: Consumer,
    queue: &'static str,
    prefetch: u16,
    /// Small messages since the last large one.
    small_in_a_row: usize,
    last_delivery: Instant,
    /// The last check found that the queue should have delivered something.
    suspicious: bool,
}

impl Listener {
    /// Begins to consume; at most `prefetch` unacknowledged deliveries are pushed, besides those that are held for long.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn on(session: Session, queue: &'static str, prefetch: u16) -> Result<Self, Error> {
        Ok(Self {
            consumer: Consumer::pulling(&session, queue).await?,
            session,
            queue,
            prefetch,
            small_in_a_row: 0,
            last_delivery: Instant::now(),
            suspicious: false,
        })
    }

    /// The next deliveries, up to `max`; none if none came within `patience`.
    ///
    /// Does not assume that silence means an empty queue: RabbitMQ 3.10 does not always tell a consumer that its queue was deleted, and a
    /// queue that is declared again never delivers to the old consumer (found by the fault suite). So after a while without deliveries it
    /// asks for the depth of the queue.
    ///
    /// # Errors
    /// As [`Consumer`]'s; and [`Error::ConsumerCancelled`] if the queue has messages, or no consumer, and nothing is delivered.
    pub async fn next_batch(&mut self, max: usize, patience: Duration) -> Result<Vec<Delivery>, Error> {
        if self.consumer.is_pulling() {
            return self.pull(max).await;
        }
        if let Ok(batch) = timeout(patience.min(QUIET), self.consumer.next_batch(max)).await {
            self.last_delivery = Instant::now();
            self.suspicious = false;
            return batch;
        }
        if self.last_delivery.elapsed() >= QUIET {
            self.last_delivery = Instant::now();
            let depth = self.session.depth(self.queue).await?;
            let is_suspicious = depth.ready > 0 || depth.consumers == 0;
            // The first time may be a message that is being delivered right now.
            if self.suspicious && is_suspicious {
                return Err(Error::ConsumerCancelled);
            }
            self.suspicious = is_suspicious;
        }
        Ok(Vec::new())
    }

    async fn pull(&mut self, max: usize) -> Result<Vec<Delivery>, Error> {
        let batch = self.consumer.pull(max.min(SMALL_IN_A_ROW)).await?;
        if batch.iter().any(is_large) {
            self.small_in_a_row = 0;
        } else {
            self.small_in_a_row += batch.len();
        }
        if batch.is_empty() || self.small_in_a_row >= SMALL_IN_A_ROW {
            self.consumer.subscribe(self.prefetch).await?;
        }
        Ok(batch)
    }

    /// Requeues everything that is not acknowledged, and pulls messages until no large ones come any more: the broker would push as many as
    /// the prefetch says, whatever their size.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn begin_pulling(&mut self) -> Result<(), Error> {
        tracing::warn!(event = "queue_listener_large_messages", queue_name = self.queue);
        let pulling = Consumer::pulling(&self.session, self.queue).await?;
        self.small_in_a_row = 0;
        mem::replace(&mut self.consumer, pulling).close().await
    }

    /// Closes the session. What was acknowledged does not come again, unless the connection fails meanwhile.
    pub async fn close(self) {
        if let Err(error) = self.consumer.close().await {
            tracing::warn!(error = chain(&error), "the last acknowledgements may be lost");
        }
        self.session.close().await;
    }
}
