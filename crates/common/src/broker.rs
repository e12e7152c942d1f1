//! RabbitMQ: what is declared there ([`topology`]), and how events are published and consumed.
//!
//! lapin's own recovery stays off: it gives up silently after a number of attempts. Instead the caller is a supervisor: it
//! opens a [`Session`], works until anything fails, drops all of it, pauses ([`Backoff`]), and starts again from the connection.

pub mod topology;

mod backoff;
mod consumer;
mod intake;
mod link;
mod listening;
mod measure;
mod outgoing;
mod publisher;
mod session;
mod spans;

pub use backoff::Backoff;
pub use consumer::Consumer;
pub use link::state;
pub use listening::{Listening, listen};
pub use outgoing::{Event, Outgoing};
pub use publisher::{Publisher, Publishing, Verdict, WINDOW, connect_publisher};
pub use session::{Depth, Session};
pub use spans::{process_span, publish_span};

use std::time::Duration;

/// Why a session with the broker is of no use any more: drop it and open another.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker cannot be reached.
    #[error("the broker cannot be reached")]
    Unreachable(#[from] std::io::Error),
    /// The broker refused something, or the connection is gone.
    #[error("the broker or the connection to it failed")]
    Amqp(#[from] lapin::Error),
    /// The broker did not answer in time.
    #[error("no answer from the broker within {} s while trying to {doing}", limit.as_secs())]
    TimedOut {
        /// What was tried.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The stream of deliveries ended: the queue was deleted or the consumer cancelled.
    #[error("the broker ended the stream of deliveries")]
    ConsumerCancelled,
    /// An exchange or a queue of our name is there, with other options. No other attempt will succeed: somebody has to remove it.
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
    /// The broker took part of a window only.
    #[error("{count} messages were not confirmed, the first because: {reason}")]
    NotConfirmed {
        /// How many.
        count: usize,
        /// The broker's reason for the first of them.
        reason: String,
    },
}

/// Waits for the broker, but not for ever.
async fn within<T, E: Into<Error>>(
    limit: Duration,
    doing: &'static str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Error::TimedOut { doing, limit }),
    }
}
