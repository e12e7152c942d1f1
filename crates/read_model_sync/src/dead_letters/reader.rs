//! Reads the dead-letter queue from its head without changing it: what is taken and not acknowledged goes back to its place when the
//! connection ends.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::broker::{Consumer, Session, topology};
use common::endpoints::Queue;
use lapin::message::Delivery;

/// Letters are of any size: few are in hand at once.
const BATCH: usize = 16;

const RETURN_POLL: Duration = Duration::from_millis(20);
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// A letter in hand. Nobody else sees it until it is removed or the reader is closed.
pub(super) struct Held {
    pub(super) delivery: Delivery,
}

impl Held {
    /// Keeps the letter but not its body, which may be large.
    pub(super) fn without_body(mut self) -> Self {
        self.delivery.data = Vec::new();
        self
    }
}

/// The letters that were there when it was opened. They are asked for, not pushed: a prefetch counts letters of any size, and this may run in
/// the container of the service.
pub(super) struct Reader {
    session: Session,
    consumer: Consumer,
    left: u32,
    /// Letters in hand.
    in_hand: u32,
}

impl Reader {
    /// Connects.
    pub(super) async fn open(queue: &Queue) -> anyhow::Result<Self> {
        let away = || format!("the queue at {}:{} is away", queue.host, queue.port);
        let session = Session::open(queue, "read_model_sync dead-letters")
            .await
            .with_context(away)?;
        let depth = session
            .depth(topology::DEAD_LETTER_QUEUE)
            .await
            .with_context(away)?;
        if depth.consumers > 0 {
            tracing::warn!(
                consumers = depth.consumers,
                "others read the dead letters as well: what they hold is not seen here"
            );
        }
        let consumer = Consumer::asking(&session, topology::DEAD_LETTER_QUEUE)
            .await
            .with_context(away)?;
        Ok(Self {
            session,
            consumer,
            left: depth.ready,
            in_hand: 0,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The next letters, in their order; none at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Vec<Held>> {
        let most = BATCH.min(usize::try_from(self.left)?);
        let batch = self.consumer.ask(most).await;
        let batch = batch.context("the dead letters cannot be read")?;
        let letters = u32::try_from(batch.len())?;
        self.left -= letters;
        self.in_hand += letters;
        Ok(batch.into_iter().map(|delivery| Held { delivery }).collect())
    }

    /// Removes a letter from the queue.
    pub(super) async fn remove(&mut self, letter: &Held) -> anyhow::Result<()> {
        self.consumer
            .acknowledge(letter.delivery.delivery_tag)
            .await
            .context("a dead letter could not be taken off the queue")?;
        self.in_hand -= 1;
        Ok(())
    }

    /// Gives back what was not removed. On return the broker has removed what was, and the next reader finds the rest.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.consumer
            .close()
            .await
            .context("the broker may not have removed the last letters")?;
        // A quorum queue takes them back in its own time, and says until then that it has none. Others may have taken some already.
        let returning_since = Instant::now();
        while self.session.depth(topology::DEAD_LETTER_QUEUE).await?.ready < self.in_hand
            && returning_since.elapsed() < RETURN_LIMIT
        {
            tokio::time::sleep(RETURN_POLL).await;
        }
        self.session.close().await;
        Ok(())
    }
}
