//! The task that owns the connection.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::buffer::{Buffer, Chunk, Limits};
use crate::config::{Config, Status};
use crate::connection::{Connection, Fault};
use crate::sender::Sender;

const MAX_EVENT_BYTES: usize = 1 << 20;
const MAX_BATCH_BYTES: usize = 1 << 20;
const MAX_BUFFER_BYTES: usize = 64 << 20;

/// After this many attempts without an acknowledgement, a batch is dropped if the buffer is full. Otherwise one
/// batch that the server cannot process would block all later ones.
const MAX_ATTEMPTS: u32 = 5;

/// Minimum time between reports of drops while nothing else happens.
const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum pause between attempts after the client was asked to stop, because the deadline is near.
const MAX_PAUSE_WHILE_STOPPING: Duration = Duration::from_millis(200);

type OnStatus = Arc<dyn Fn(Status) + Send + Sync>;

/// Starts the client as a task on the current tokio runtime. It connects at once, and reconnects when needed.
///
/// `on_status` is called from that task, so it must not block. It may use the [`Sender`].
///
/// # Panics
///
/// Outside of a tokio runtime.
pub fn start(config: Config, on_status: impl Fn(Status) + Send + Sync + 'static) -> (Sender, Worker) {
    let config = config.clamped();
    let buffer = Arc::new(Buffer::new(Limits {
        events: config.buffer_events,
        bytes: MAX_BUFFER_BYTES,
        event_bytes: MAX_EVENT_BYTES,
        batch_events: config.batch_events,
        batch_bytes: MAX_BATCH_BYTES,
    }));
    let on_status: OnStatus = Arc::new(on_status);
    let delivery = Delivery {
        backoff: Backoff::new(config.retry),
        config,
        buffer: Arc::clone(&buffer),
        on_status: Arc::clone(&on_status),
        drops_reported: Instant::now(),
        batch: Vec::new(),
        attempts: 0,
    };
    let task = tokio::spawn(delivery.run());
    (
        Sender::new(Arc::clone(&buffer)),
        Worker {
            buffer,
            on_status,
            task,
        },
    )
}

/// The running client. If this is dropped, the client keeps running; [`flush_and_stop`](Self::flush_and_stop) ends it.
#[must_use = "events still buffered at the end of the process are lost without `flush_and_stop`"]
pub struct Worker {
    buffer: Arc<Buffer>,
    on_status: OnStatus,
    task: JoinHandle<()>,
}

/// What happened to the events that were not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// Acknowledged by the server, since the start.
    pub sent: u64,
    /// Not acknowledged. The server may still have received some of them.
    pub undelivered: u64,
}

impl Worker {
    /// Sends all buffered events, also those that are added meanwhile, and ends the client when all are
    /// acknowledged or the deadline has passed.
    pub async fn flush_and_stop(self, deadline: Duration) -> Flushed {
        let Self {
            buffer,
            on_status,
            mut task,
        } = self;
        buffer.stop();
        // If the task has panicked, this returns at once, and its events count as undelivered.
        if timeout(deadline, &mut task).await.is_err() {
            task.abort();
        }
        buffer.close();
        report_drops(&buffer, &on_status);
        let counts = buffer.counts();
        Flushed {
            sent: counts.sent,
            undelivered: counts.pending as u64,
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("counts", &self.buffer.counts())
            .finish_non_exhaustive()
    }
}

struct Delivery {
    config: Config,
    buffer: Arc<Buffer>,
    on_status: OnStatus,
    backoff: Backoff,
    drops_reported: Instant,
    /// Chunks that were sent and not acknowledged. They are kept when the connection ends.
    batch: Vec<Chunk>,
    /// How often the batch was sent.
    attempts: u32,
}

impl Delivery {
    async fn run(mut self) {
        loop {
            let Err(fault) = self.connect_and_serve().await else {
                return;
            };
            (self.on_status)(Status::ConnectFailed {
                error: fault.to_string(),
            });
            if self.drops_reported.elapsed() >= DROP_REPORT_INTERVAL {
                self.report_drops();
            }
            if self.finished() {
                return;
            }
            self.pause().await;
        }
    }

    /// Returns `Ok` only when the client was asked to stop and nothing is left to send.
    async fn connect_and_serve(&mut self) -> Result<(), Fault> {
        let opening = Connection::open(&self.config.host, self.config.port);
        let mut connection = tokio::select! {
            opened = opening => opened?,
            () = self.stopped_with_nothing_to_send() => return Ok(()),
        };
        (self.on_status)(Status::Connected);
        self.report_drops();
        while self.serve_batch(&mut connection).await?.is_continue() {
            if self.drops_reported.elapsed() >= DROP_REPORT_INTERVAL {
                self.report_drops();
            }
        }
        Ok(())
    }

    async fn serve_batch(&mut self, connection: &mut Connection) -> Result<ControlFlow<()>, Fault> {
        if self.batch.is_empty() {
            tokio::select! {
                () = self.buffer.batch_ready(self.config.batch_wait) => {}
                fault = connection.fault() => return Err(fault),
            }
            self.batch = self.buffer.take_batch();
            self.attempts = 0;
        }
        if self.batch.is_empty() {
            return Ok(if self.finished() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            });
        }
        self.attempts += 1;
        let buffer = &self.buffer;
        let acknowledged = |chunk: &Chunk| buffer.acknowledged(chunk.events);
        let delivered = connection
            .deliver(&mut self.batch, self.config.ack_timeout, acknowledged)
            .await;
        if delivered.is_err() {
            self.give_up_after_max_attempts();
        } else {
            self.backoff.reset();
        }
        delivered.map(ControlFlow::Continue)
    }

    fn give_up_after_max_attempts(&mut self) {
        let events = self.batch.iter().map(|chunk| chunk.events).sum();
        if self.attempts >= MAX_ATTEMPTS && self.buffer.give_up_if_full(events) {
            self.batch.clear();
        }
    }

    fn finished(&self) -> bool {
        self.buffer.is_stopping() && self.buffer.counts().pending == 0
    }

    async fn stopped_with_nothing_to_send(&self) {
        self.buffer.stopping().await;
        if self.buffer.counts().pending > 0 {
            std::future::pending::<()>().await;
        }
    }

    async fn pause(&mut self) {
        let pause = self.backoff.next_pause();
        if self.buffer.is_stopping() {
            return sleep(pause.min(MAX_PAUSE_WHILE_STOPPING)).await;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = self.buffer.stopping() => {}
        }
    }

    fn report_drops(&mut self) {
        self.drops_reported = Instant::now();
        report_drops(&self.buffer, &self.on_status);
    }
}

fn report_drops(buffer: &Buffer, on_status: &OnStatus) {
    let events = buffer.take_unreported_drops();
    if events > 0 {
        on_status(Status::Dropped { events });
    }
}
