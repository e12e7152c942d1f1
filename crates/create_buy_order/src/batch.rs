//! Orders that arrive together are written together: one lock, one insert, one commit, each with its own verdict.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::database;
use sqlx::PgPool;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::db;
use crate::order::{Draft, Order, Verdict};

/// Drafts of one transaction at most: enough to spread the cost of a commit, few enough to keep the lock short.
const MOST_PER_BATCH: usize = 500;

/// Drafts that may wait; beyond that a request is refused at once instead of timing out later.
const MOST_WAITING: usize = 2_000;

/// Longer than a transaction usually takes, no longer than a client waits.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// Why there is no verdict. Whether the order was written is not known, except for [`WriteError::Busy`]; repeating the request is safe.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Too many orders are waiting to be written.
    #[error("too many orders are waiting")]
    Busy,
    /// The write model has not answered within a time that a client can wait.
    #[error("the write model did not answer in {} s", LONGEST_WAIT.as_secs())]
    TimedOut,
    /// The writer is gone, as it is while the service stops.
    #[error("the writer has stopped")]
    Stopped,
    /// The transaction failed.
    #[error("the batch could not be written")]
    Database(#[source] Arc<sqlx::Error>),
}

struct Job {
    draft: Draft,
    answer: oneshot::Sender<Result<Verdict, WriteError>>,
}

/// Hands drafts to the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders {
    jobs: mpsc::Sender<Job>,
}

impl Orders {
    /// Has a draft written with those that arrive together with it. A caller that stops waiting changes nothing.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write(&self, draft: Draft) -> Result<Verdict, WriteError> {
        let (answer, verdict) = oneshot::channel();
        self.jobs
            .try_send(Job { draft, answer })
            .map_err(|error| match error {
                TrySendError::Full(_) => WriteError::Busy,
                TrySendError::Closed(_) => WriteError::Stopped,
            })?;
        match tokio::time::timeout(LONGEST_WAIT, verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::TimedOut),
        }
    }
}

/// The writer, to be run as a task of its own, and the handle that feeds it. It ends, with all it was handed written, when the last
/// handle is gone. `outbox_grew` is notified after each commit of new orders.
pub fn writer(
    pool: PgPool,
    outbox_grew: Arc<Notify>,
) -> (Orders, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let (jobs, mut waiting) = mpsc::channel(MOST_WAITING);
    let write_all = async move {
        let mut batch = Vec::with_capacity(MOST_PER_BATCH);
        while waiting.recv_many(&mut batch, MOST_PER_BATCH).await > 0 {
            write(&pool, batch.drain(..), &outbox_grew).await;
        }
        Ok(())
    };
    (Orders { jobs }, write_all)
}

async fn write(pool: &PgPool, batch: impl Iterator<Item = Job>, outbox_grew: &Notify) {
    let (drafts, answers): (Vec<Draft>, Vec<_>) = batch.map(|job| (job.draft, job.answer)).unzip();
    let written = database::with_connection(pool, async |connection| {
        db::write_batch(connection, &drafts).await
    });
    match written.await {
        Ok(verdicts) => {
            outbox_grew.notify_one();
            for (answer, verdict) in answers.into_iter().zip(verdicts) {
                report(&verdict);
                // The client may have hung up; its order is in the book all the same.
                let _ = answer.send(Ok(verdict));
            }
        }
        Err(error) => {
            tracing::error!(event = "model_update_failed", model = "write_model", info = %error);
            let error = Arc::new(error);
            for answer in answers {
                let _ = answer.send(Err(WriteError::Database(Arc::clone(&error))));
            }
        }
    }
}

fn report(verdict: &Verdict) {
    if let Verdict::Created(Order { id, external_id, .. }) = verdict {
        tracing::info!(event = "buy_order_created", id, %external_id);
    }
}
