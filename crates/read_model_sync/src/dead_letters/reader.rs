//! Reads the dead-letter queue from its head without changing it: letters that are not removed return to their place when the connection
//! ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::broker::{Connector, Consumer, Session, topology};
use common::endpoints::Queue;
use lapin::message::Delivery;

/// Letters may be of any size, so few are in memory together.
const BATCH: usize = 16;

const REQUEUE_POLL: Duration = Duration::from_millis(20);
const REQUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the letters that were there when it was opened. Nobody else sees a letter from when it is read until it is removed or the reader is
/// closed.
///
/// It pulls, because a prefetch counts letters of any size, and this may run in the container of the service.
pub(super) struct Reader {
    pub(super) session: Session,
    queue_name: String,
    consumer: Consumer,
    /// Letters that are not pulled yet.
    left: u32,
    pulled: VecDeque<Delivery>,
    /// Letters that were pulled and not removed.
    unacknowledged: u32,
}

impl Reader {
    /// Connects.
    pub(super) async fn open(connector: &Connector) -> anyhow::Result<Self> {
        let Queue { host, port, .. } = &connector.endpoint;
        let queue_name = topology::dead_letter_name(connector.queue);
        let away = || format!("the queue at {host}:{port} is away");
        let session = Session::open(connector).await.with_context(away)?;
        let depth = session.depth(&queue_name).await.with_context(away)?;
        let consumer = Consumer::pulling(&session, &queue_name).await;
        let consumer = consumer.with_context(away)?;
        if depth.consumers > 0 {
            tracing::warn!(
                consumers = depth.consumers,
                "others read the dead letters as well: what they hold is not seen here"
            );
        }
        Ok(Self {
            session,
            queue_name,
            consumer,
            left: depth.ready,
            pulled: VecDeque::new(),
            unacknowledged: 0,
        })
    }

    /// The next letter; nothing at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Delivery>> {
        if self.pulled.is_empty() {
            let max = BATCH.min(usize::try_from(self.left)?);
            let batch = self.consumer.pull(max).await;
            self.pulled = batch.context("the dead letters cannot be read")?.into();
            let letters = u32::try_from(self.pulled.len())?;
            self.left -= letters;
            self.unacknowledged += letters;
        }
        Ok(self.pulled.pop_front())
    }

    /// Removes a letter from the queue.
    pub(super) async fn remove(&mut self, letter: &Delivery) -> anyhow::Result<()> {
        self.consumer
            .acknowledge(letter.delivery_tag)
            .await
            .context("a dead letter could not be taken off the queue")?;
        self.unacknowledged -= 1;
        Ok(())
    }

    /// Requeues what was not removed. On return the broker has processed all removals, and the next reader finds the rest.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.consumer
            .close()
            .await
            .context("the broker may not have removed the last letters")?;
        // A quorum queue takes a while to requeue them. Others may have taken some already, so this has a timeout.
        let closed_at = Instant::now();
        while self.session.depth(&self.queue_name).await?.ready < self.unacknowledged
            && closed_at.elapsed() < REQUEUE_TIMEOUT
        {
            tokio::time::sleep(REQUEUE_POLL).await;
        }
        self.session.close().await;
        Ok(())
    }
}
