//! Reads the dead-letter queue from its head without changing it: what is taken and not acknowledged goes back to its place when the
//! connection ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use common::broker::{Consumer, Session, topology};
use common::endpoints::Queue;
use lapin::message::Delivery;

/// Letters are of any size: few are in hand at once.
const BATCH: usize = 16;

/// A queue that has letters delivers within milliseconds.
const SILENCE: Duration = Duration::from_secs(1);
const SILENCE_LIMIT: Duration = Duration::from_secs(15);

const RETURN_POLL: Duration = Duration::from_millis(20);
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// A letter in hand. Nobody else sees it until it is acknowledged or the reader is closed.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    consumer: usize,
}

impl Held {
    /// Keeps the letter but not its body, which may be large.
    pub(super) fn without_body(mut self) -> Self {
        self.delivery.data = Vec::new();
        self
    }
}

/// The letters that were there when it was opened.
pub(super) struct Reader {
    session: Session,
    prefetch: u16,
    consumers: Vec<Consumer>,
    /// Letters of the last consumer that are not acknowledged.
    held: u16,
    left: u32,
    /// Letters in hand, of all consumers.
    in_hand: u32,
}

impl Reader {
    /// Connects. The broker sends up to `prefetch` letters ahead.
    pub(super) async fn open(queue: &Queue, prefetch: u16) -> anyhow::Result<Self> {
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
        Ok(Self {
            session,
            prefetch,
            consumers: Vec::new(),
            held: 0,
            left: depth.ready,
            in_hand: 0,
        })
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The next letters, in their order; none at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Vec<Held>> {
        let silent_since = Instant::now();
        while self.left > 0 {
            let (last, room) = self.consumer().await?;
            let most = BATCH.min(usize::from(room)).min(usize::try_from(self.left)?);
            let next = self.consumers[last].next_batch(most);
            if let Ok(batch) = tokio::time::timeout(SILENCE, next).await {
                let batch = batch.context("the dead letters cannot be read")?;
                self.held += u16::try_from(batch.len())?;
                self.left -= u32::try_from(batch.len())?;
                self.in_hand += u32::try_from(batch.len())?;
                let hold = |delivery| Held {
                    delivery,
                    consumer: last,
                };
                return Ok(batch.into_iter().map(hold).collect());
            }
            // Another process may have taken what we counted on.
            if self.session.depth(topology::DEAD_LETTER_QUEUE).await?.ready == 0 {
                break;
            }
            ensure!(
                silent_since.elapsed() < SILENCE_LIMIT,
                "the queue has dead letters but does not deliver them"
            );
        }
        Ok(Vec::new())
    }

    /// The consumer to read from, and how many letters it may still hold. Each may hold a limited number, so there may be several.
    async fn consumer(&mut self) -> anyhow::Result<(usize, u16)> {
        if self.consumers.is_empty() || self.held == self.prefetch {
            let consumer = Consumer::on(&self.session, topology::DEAD_LETTER_QUEUE, self.prefetch)
                .await
                .context("the dead letters cannot be read")?;
            self.consumers.push(consumer);
            self.held = 0;
        }
        Ok((self.consumers.len() - 1, self.prefetch - self.held))
    }

    /// Removes a letter from the queue.
    pub(super) async fn remove(&mut self, letter: &Held) -> anyhow::Result<()> {
        self.consumers[letter.consumer]
            .acknowledge(&letter.delivery)
            .await
            .context("a dead letter could not be taken off the queue")?;
        self.in_hand -= 1;
        if letter.consumer + 1 == self.consumers.len() {
            self.held -= 1;
        }
        Ok(())
    }

    /// Gives back what was not removed. On return the broker has removed what was, and the next reader finds the rest.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        for consumer in self.consumers {
            consumer
                .close()
                .await
                .context("the broker may not have removed the last letters")?;
        }
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
