//! Orders that arrive at the same time are written by one statement. Each gets its own verdict.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::database::outage::{Retries, is_invalid_value};
use common::database::with_connection;
use common::money::BtcAmount;
use common::{database, trace};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::db;
use crate::error::WriteError;
use crate::metrics::METRICS;
use crate::order::{Draft, Order, Verdict};
use crate::turns::Turns;

/// The most drafts in one statement: enough to share the cost of a commit, few enough to hold the lock briefly.
const MAX_PER_BATCH: usize = 500;

/// The most drafts of one client in one statement: so an order of another client does not wait for long, however many this one sends.
const MAX_OF_A_CLIENT: usize = 128;

/// The capacity of the queue of drafts. While it is full, requests of clients that have their share of it are refused at once instead of timing
/// out later.
const MAX_WAITING: usize = 2_000;

/// How long a request waits for its verdict: longer than a batch usually takes, and shorter than clients wait.
const LONGEST_WAIT: Duration = Duration::from_secs(12);

/// Begins the span that writes an order, in the trace of its request. Its name and attributes follow OpenTelemetry's semantic conventions for
/// databases. Each order of a batch has its own span, because each belongs to another trace.
pub(crate) fn span(request: &Context) -> Context {
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

#[derive(Debug)]
struct Job {
    draft: Draft,
    answer: oneshot::Sender<Result<Verdict, WriteError>>,
}

/// The drafts that wait for the writer.
#[derive(Debug)]
struct Queue {
    /// `None` after the writer has ended.
    turns: Mutex<Option<Turns<Job>>>,
    arrived: Notify,
}

impl Queue {
    fn push(&self, job: Job) -> Result<(), WriteError> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let client_id = job.draft.identity.client_id;
        let Some(turns) = turns.as_mut() else {
            return Err(WriteError::Stopped);
        };
        if !turns.has_room(client_id) {
            trace::fail(&job.draft.trace, "busy", WriteError::Busy.to_string());
            return Err(WriteError::Busy);
        }
        turns.push(client_id, job);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next draft. Waits for one, unless `closed` says that none will come.
    async fn next(&self, closed: &CancellationToken) -> Option<Job> {
        loop {
            // Asked first: what arrived before it closed is still taken.
            let was_closed = closed.is_cancelled();
            if let Some(job) = self.take(1).pop() {
                return Some(job);
            }
            if was_closed {
                return None;
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = closed.cancelled() => {}
            }
        }
    }

    fn take(&self, limit: usize) -> Vec<Job> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns
            .as_mut()
            .map_or_else(Vec::new, |turns| turns.take(limit, MAX_OF_A_CLIENT))
    }

    fn is_empty(&self) -> bool {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.as_ref().is_none_or(Turns::is_empty)
    }
}

/// Hands drafts to the writer; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    queue: Arc<Queue>,
    /// The attributes of its spans that name the database.
    database: Arc<[KeyValue]>,
    /// Tells the writer when the last handle is dropped.
    _open: Arc<DropGuard>,
}

impl Orders {
    /// Writes a draft, in a batch with other drafts. The draft is written even if the caller stops waiting.
    pub(crate) async fn write(&self, draft: Draft) -> Result<Verdict, WriteError> {
        let span = draft.trace.span();
        if span.is_recording() {
            span.set_attributes(self.database.iter().cloned());
        }
        let (answer, verdict) = oneshot::channel();
        // Counted before it is sent, because the writer may take it at once.
        METRICS.waiting.inc();
        if let Err(error) = self.queue.push(Job { draft, answer }) {
            METRICS.waiting.dec();
            return Err(error);
        }
        match tokio::time::timeout(LONGEST_WAIT, verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::TimedOut(LONGEST_WAIT)),
        }
    }
}

/// Returns the handle of the writer and the writer, which must run in its own task. The writer ends after the last handle was dropped and all
/// drafts were written. It notifies `outbox_grew` after each commit of new orders. `client_limit` is the BTC that each client may have in the
/// book.
pub(crate) fn writer(
    pool: database::Pool,
    outbox_grew: Arc<Notify>,
    client_limit: Option<BtcAmount>,
) -> (Orders, impl Future<Output = anyhow::Result<()>> + Send + 'static) {
    let queue = Arc::new(Queue {
        turns: Mutex::new(Some(Turns::new(MAX_WAITING))),
        arrived: Notify::new(),
    });
    let closed = CancellationToken::new();
    let orders = Orders {
        queue: Arc::clone(&queue),
        database: Arc::from(pool.span_attributes()),
        _open: Arc::new(closed.clone().drop_guard()),
    };
    let mut writer = Writer {
        pool,
        outbox_grew,
        client_limit,
        queue,
        answering: TaskTracker::new(),
    };
    let write_all = async move {
        while let Some(first) = writer.queue.next(&closed).await {
            writer.write(first).await;
        }
        writer.answering.close();
        writer.answering.wait().await;
        Ok(())
    };
    (orders, write_all)
}

struct Writer {
    pool: database::Pool,
    outbox_grew: Arc<Notify>,
    client_limit: Option<BtcAmount>,
    queue: Arc<Queue>,
    answering: TaskTracker,
}

/// Whatever ends it: nobody waits for a writer that is gone.
impl Drop for Writer {
    fn drop(&mut self) {
        let mut turns = self.queue.turns.lock().unwrap_or_else(PoisonError::into_inner);
        *turns = None;
    }
}

impl Writer {
    /// Writes this draft and all drafts in the queue. The next batch gathers in the queue meanwhile.
    async fn write(&mut self, first: Job) {
        let mut batch = Batch::default();
        batch.add([first]);
        let duration = METRICS.writes.start_timer();
        let written = match self.write_all(&mut batch).await {
            Ok(verdicts) => verdicts.into_iter().map(Ok).collect(),
            // One draft is invalid: only that one must fail.
            Err(error) if batch.drafts.len() > 1 && is_invalid_value(&error) => {
                self.write_in_parts(&batch.drafts).await
            }
            Err(error) => failures(error, batch.drafts.len()),
        };
        duration.observe_duration();
        let is_new = |written: &_| matches!(written, Ok(Verdict::Created(_)));
        if written.iter().any(is_new) {
            self.outbox_grew.notify_one();
        }
        METRICS.count_batch(batch.drafts.len());
        if self.queue.is_empty() {
            batch.answer(written);
        } else {
            // In another task, so that the next batch can begin.
            self.answering.spawn(async move { batch.answer(written) });
        }
    }

    async fn write_all(&mut self, batch: &mut Batch) -> sqlx::Result<Vec<Verdict>> {
        let mut retries = Retries::default();
        loop {
            let mut has_connection = false;
            let accepted = with_connection(&self.pool, async |connection| {
                has_connection = true;
                batch.add_waiting(&self.queue);
                db::accept_orders(connection, &batch.drafts, self.client_limit).await
            });
            match accepted.await {
                // Repeating is safe even if the first try was committed: the same drafts get the same verdicts.
                Err(error) if retries.allow(&error) => {}
                accepted => {
                    if !has_connection {
                        // No connection was available. Drafts that arrived meanwhile fail now instead of waiting for the same timeout.
                        batch.add_waiting(&self.queue);
                    }
                    return accepted;
                }
            }
        }
    }

    /// Writes halves of the batch, and halves of those, until each draft that the database refuses fails alone.
    async fn write_in_parts(&self, drafts: &[Draft]) -> Written {
        let mut written = Written::with_capacity(drafts.len());
        let (first, second) = drafts.split_at(drafts.len() / 2);
        let mut parts = vec![second, first];
        while let Some(part) = parts.pop() {
            let accepted = with_connection(&self.pool, async |connection| {
                db::accept_orders(connection, part, self.client_limit).await
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

/// The result of each draft.
type Written = Vec<Result<Verdict, Arc<sqlx::Error>>>;

/// The same error for each draft of a batch; logged once.
fn failures(error: sqlx::Error, drafts: usize) -> Written {
    tracing::error!(event = "model_update_failed", model = "write_model", info = %error);
    vec![Err(Arc::new(error)); drafts]
}

/// Drafts that are written together, and the callers that wait for their verdicts.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    answers: Vec<oneshot::Sender<Result<Verdict, WriteError>>>,
}

impl Batch {
    fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for Job { draft, answer } in jobs {
            self.drafts.push(draft);
            self.answers.push(answer);
        }
    }

    fn add_waiting(&mut self, queue: &Queue) {
        self.add(queue.take(MAX_PER_BATCH - self.drafts.len()));
    }

    fn answer(self, written: Written) {
        let Self { drafts, answers } = self;
        let batch_size = i64::try_from(drafts.len()).unwrap_or(i64::MAX);
        for ((draft, answer), written) in drafts.into_iter().zip(answers).zip(written) {
            let span = draft.trace.span();
            span.set_attribute(KeyValue::new("db.operation.batch.size", batch_size));
            if let Err(error) = &written {
                trace::fail(&draft.trace, database::error_type(error), error.to_string());
            }
            span.end();
            let _in_its_trace = draft.trace.clone().attach();
            if let Ok(Verdict::Created(Order { id, external_id, .. })) = &written {
                METRICS.created.inc();
                tracing::info!(event = "buy_order_created", id, %external_id);
            }
            // The client may have disconnected. Its order is written all the same.
            let _ = answer.send(written.map_err(WriteError::Database));
        }
    }
}
