//! RabbitMQ: what exists there, how messages are published and consumed, and how connections are kept up.
//!
//! In reading order: [`topology`] (exchanges and queues), `session` (one connection) and its `encryption`, `message` and `publisher` (publishing with
//! confirms), `consumer` and `intake` (batches of deliveries, bounded in bytes), `listener` (a consumer that notices a lost queue and
//! large messages), `supervisor` (connects again after any failure), `metrics`, `spans`.
//!
//! lapin's own recovery stays off, because it gives up silently after a number of attempts.

pub mod topology;

mod consumer;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod contract;
mod encryption;
mod intake;
mod listener;
mod message;
mod metrics;
mod publisher;
mod session;
mod spans;
mod supervisor;

pub use consumer::Consumer;
pub use listener::Listener;
pub use message::{Event, Outgoing};
pub use metrics::state;
pub use publisher::{Publisher, Unconfirmed, WINDOW};
pub use session::{Connector, Depth, Depths, Session};
pub use spans::{process_span, publish_span};
pub use supervisor::{Role, Supervisor, Worker};

use std::time::Duration;

/// Why a session with the broker cannot be used any more: drop it and open another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached.
    #[error("the broker cannot be reached")]
    Unreachable(#[from] std::io::Error),
    /// No TLS, because of the certificate or because the broker does not speak it.
    #[error("no encrypted connection to the broker")]
    NotEncrypted(#[source] std::io::Error),
    /// The broker refused something, or the connection is gone.
    #[error("the broker or the connection to it failed")]
    Amqp(#[from] lapin::Error),
    /// The broker did not answer in time.
    #[error("no answer from the broker within {} s while trying to {doing}", limit.as_secs())]
    TimedOut {
        /// What was tried.
        doing: &'static str,
        /// The timeout.
        limit: Duration,
    },
    /// The stream of deliveries ended: the queue was deleted or the consumer cancelled.
    #[error("the broker ended the stream of deliveries")]
    ConsumerCancelled,
    /// An exchange or a queue is missing. `migration` declares it.
    #[error(
        "an exchange or a queue is missing, and is waited for: migration declares it; the broker says: {reply}"
    )]
    Missing {
        /// The broker's words: what is missing.
        reply: String,
    },
    /// An exchange or a queue of our name exists with other options. Retrying does not help: an operator has to remove it.
    #[error(
        "an exchange or a queue of this name is declared otherwise, and has to be removed first; the broker says: {reply}"
    )]
    DeclaredOtherwise {
        /// The broker's words: what differs, and how.
        reply: String,
    },
    /// The connection was found closed.
    #[error("the connection to the broker is closed")]
    Closed,
    /// The broker did not confirm some of the messages.
    #[error("{count} messages were not confirmed, the first because: {reason}")]
    NotConfirmed {
        /// How many.
        count: usize,
        /// The reason for the first of them.
        reason: Unconfirmed,
    },
}

impl Error {
    /// The kind of the error, for spans.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NotEncrypted(_) => "not_encrypted",
            Self::Amqp(_) => "amqp",
            Self::TimedOut { .. } => "timeout",
            Self::ConsumerCancelled => "consumer_cancelled",
            Self::Missing { .. } => "missing",
            Self::DeclaredOtherwise { .. } => "declared_otherwise",
            Self::Closed => "closed",
            Self::NotConfirmed { reason, .. } => reason.kind(),
        }
    }
}

/// A broker that works answers within milliseconds, even to a window of messages; one that needs longer hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the broker's answer, up to [`ANSWER_TIMEOUT`].
async fn in_time<T>(doing: &'static str, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, Error> {
    let limit = ANSWER_TIMEOUT;
    let answered = tokio::time::timeout(limit, answer).await;
    Ok(answered.map_err(|_| Error::TimedOut { doing, limit })??)
}
