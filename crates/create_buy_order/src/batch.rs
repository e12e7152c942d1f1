//! Orders that arrive together are written together, by one statement, each with its own verdict.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::database::outage::{Retries, is_invalid_value};
use common::database::with_connection;
use common::{database, trace};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::db;
use crate::error::WriteError;
use crate::metrics::METRICS;
use crate::order::{Draft, Order, Verdict};

/// Drafts of one statement at most: enough to spread the cost of a commit, few enough to keep the lock short.
const MAX_PER_BATCH: usize = 500;

/// Drafts that may wait; beyond that a request is refused at once instead of timing out later.
const MAX_WAITING: usize = 2_000;

/// Longer than a batch usually takes, no longer than a client waits.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// Begins the span of writing an order as a part of the trace of its request. Names and attributes are those of OpenTelemetry's semantic
/// conventions for databases. Orders that are written together have a span each: their traces have nothing else in common.
#[must_use]
pub fn span(request: &Context) -> Context {
    trace::start(request, || {
        SpanBuilder::from_name("SELECT accept_orders")
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", "SELECT"),
                KeyValue::new("db.stored_procedure.name", "accept_orders"),
            ])
    })
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
        // Before it is sent: the writer may take it, and count it down, at once.
        METRICS.waiting.inc();
        if let Err(refused) = self.jobs.try_send(Job { draft, answer }) {
            METRICS.waiting.dec();
            let (error, job) = match refused {
                TrySendError::Full(job) => (WriteError::Busy, job),
                TrySendError::Closed(job) => (WriteError::Stopped, job),
            };
            trace::fail(&job.draft.trace, error.to_string());
            return Err(error);
        }
        match tokio::time::timeout(LONGEST_WAIT, verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::TimedOut(LONGEST_WAIT)),
        }
    }
}

/// The writer, to be run as a task of its own, and the handle that feeds it. It ends, with all it was handed written, when the last
/// handle is gone. `outbox_grew` is notified after each commit of new orders.
pub fn writer(
    pool: database::Pool,
    outbox_grew: Arc<Notify>,
) -> (Orders, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let (jobs, waiting) = mpsc::channel(MAX_WAITING);
    let mut writer = Writer {
        pool,
        outbox_grew,
        waiting,
        answering: TaskTracker::new(),
    };
    let write_all = async move {
        while let Some(first) = writer.waiting.recv().await {
            writer.write(first).await;
        }
        writer.answering.close();
        writer.answering.wait().await;
        Ok(())
    };
    (Orders { jobs }, write_all)
}

struct Writer {
    pool: database::Pool,
    outbox_grew: Arc<Notify>,
    waiting: mpsc::Receiver<Job>,
    answering: TaskTracker,
}

impl Writer {
    /// Writes this draft, and with it all that wait by then: while a batch is written, the next one gathers.
    async fn write(&mut self, first: Job) {
        let mut batch = Batch::default();
        batch.push(first);
        let begun = Instant::now();
        let written = match self.write_all(&mut batch).await {
            Ok(verdicts) => verdicts.into_iter().map(Ok).collect(),
            // One of them is to blame: let it fail alone.
            Err(error) if batch.drafts.len() > 1 && is_invalid_value(&error) => {
                self.write_in_parts(&batch.drafts).await
            }
            Err(error) => failures(error, batch.drafts.len()),
        };
        METRICS.count_write(begun);
        let is_new = |written: &_| matches!(written, Ok(Verdict::Created(_)));
        if written.iter().any(is_new) {
            self.outbox_grew.notify_one();
        }
        METRICS.count_batch(batch.drafts.len());
        if self.waiting.is_empty() {
            batch.answer(written);
        } else {
            // Beside the next batch, which can begin.
            self.answering.spawn(async move { batch.answer(written) });
        }
    }

    async fn write_all(&mut self, batch: &mut Batch) -> sqlx::Result<Vec<Verdict>> {
        let mut retries = Retries::default();
        loop {
            let mut has_connection = false;
            let accepted = with_connection(&self.pool, async |connection| {
                has_connection = true;
                batch.take_waiting(&mut self.waiting);
                db::accept_orders(connection, &batch.drafts).await
            });
            match accepted.await {
                // Also where it is not known what became of the first try: the same drafts have the same verdicts.
                Err(error) if retries.allow(&error) => {}
                accepted => {
                    if !has_connection {
                        // Those who came meanwhile would wait for nothing in the same way, one after the other.
                        batch.take_waiting(&mut self.waiting);
                    }
                    return accepted;
                }
            }
        }
    }

    /// Each part by itself, halved until the drafts that the database refuses are alone.
    async fn write_in_parts(&self, drafts: &[Draft]) -> Written {
        let mut written = Written::with_capacity(drafts.len());
        let (first, second) = drafts.split_at(drafts.len() / 2);
        let mut parts = vec![second, first];
        while let Some(part) = parts.pop() {
            let accepted = with_connection(&self.pool, async |connection| {
                db::accept_orders(connection, part).await
            });
            match accepted.await {
                Ok(verdicts) => written.extend(verdicts.into_iter().map(Ok)),
                Err(error) if part.len() > 1 && is_invalid_value(&error) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => written.extend(failures(error, part.len())),
            }
        }
        written
    }
}

/// What became of each draft.
type Written = Vec<Result<Verdict, Arc<sqlx::Error>>>;

/// Drafts that failed together, told once.
fn failures(error: sqlx::Error, drafts: usize) -> Written {
    tracing::error!(event = "model_update_failed", model = "write_model", info = %error);
    vec![Err(Arc::new(error)); drafts]
}

/// Drafts that are written together, and who waits for their verdicts.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    answers: Vec<oneshot::Sender<Result<Verdict, WriteError>>>,
}

impl Batch {
    fn push(&mut self, job: Job) {
        self.drafts.push(job.draft);
        self.answers.push(job.answer);
    }

    fn take_waiting(&mut self, waiting: &mut mpsc::Receiver<Job>) {
        while self.drafts.len() < MAX_PER_BATCH
            && let Ok(job) = waiting.try_recv()
        {
            self.push(job);
        }
    }

    fn answer(self, written: Written) {
        let Self { drafts, answers } = self;
        let batch_size = i64::try_from(drafts.len()).unwrap_or(i64::MAX);
        for ((draft, answer), written) in drafts.into_iter().zip(answers).zip(written) {
            let span = draft.trace.span();
            span.set_attribute(KeyValue::new("db.operation.batch.size", batch_size));
            if let Err(error) = &written {
                trace::fail(&draft.trace, error.to_string());
            }
            span.end();
            let _in_its_trace = draft.trace.clone().attach();
            if let Ok(verdict) = &written {
                report(verdict);
            }
            // The client may have hung up; its order is in the book all the same.
            let _ = answer.send(written.map_err(WriteError::Database));
        }
    }
}

fn report(verdict: &Verdict) {
    if let Verdict::Created(Order { id, external_id, .. }) = verdict {
        METRICS.created.inc();
        tracing::info!(event = "buy_order_created", id, %external_id);
    }
}
