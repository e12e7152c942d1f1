//! Keeps a connection to the broker up: connects, lets a worker use it until anything fails, pauses, and connects anew.

use tokio_util::sync::CancellationToken;

use super::{Connector, Error, Session, metrics};
use crate::logging::chain;
use crate::retry::Backoff;

/// What a connection is for. None both publishes and consumes: a broker that is short of memory or disk stops reading connections that
/// publish, and with them their acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It publishes.
    Publisher,
    /// It consumes.
    Listener,
    /// It declares exchanges, queues and bindings.
    Declarer,
}

/// Uses the sessions of a [`Supervisor`].
pub trait Worker {
    /// Works until an error, or until the process is asked to stop: then it closes the session and returns. It resets the backoff after each
    /// success.
    fn work(
        &mut self,
        session: Session,
        backoff: &mut Backoff,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Connects as often as necessary, until the process is asked to stop.
#[derive(Debug)]
pub struct Supervisor {
    connector: Connector,
    role: Role,
    backoff: Backoff,
    stopping: CancellationToken,
}

impl Supervisor {
    /// Does not connect yet.
    #[must_use]
    pub fn new(connector: Connector, role: Role, stopping: CancellationToken) -> Self {
        Self {
            backoff: Backoff::starting_at(connector.endpoint.connect_retry),
            connector,
            role,
            stopping,
        }
    }

    /// Connects until it succeeds, with an event per attempt. Returns nothing when the process was asked to stop.
    pub async fn connect(&mut self) -> Option<Session> {
        let name = self.connector.name;
        metrics::connecting(name);
        loop {
            let attempt = async {
                match self.role {
                    Role::Publisher | Role::Listener => Session::open(&self.connector).await,
                    Role::Declarer => Session::open_declaring(&self.connector).await,
                }
            };
            match self.stopping.run_until_cancelled(attempt).await? {
                Ok(session) => {
                    metrics::connected(name, session.status());
                    self.report_success();
                    return Some(session);
                }
                Err(error) => self.report_failure(&error),
            }
            if !self.backoff.pause(&self.stopping).await {
                return None;
            }
        }
    }

    /// Lets the worker work on a session, `first` or else a new one. After an error it logs it, pauses, and continues with a new session. Ends
    /// when the worker returns without an error, or the process was asked to stop.
    pub async fn run(mut self, first: Option<Session>, worker: &mut impl Worker) {
        let mut next = match first {
            None => self.connect().await,
            first => first,
        };
        while let Some(session) = next {
            match worker.work(session, &mut self.backoff).await {
                Ok(()) => return,
                Err(error) => self.report_failure(&error),
            }
            if !self.backoff.pause(&self.stopping).await {
                return;
            }
            next = self.connect().await;
        }
    }

    fn report_success(&self) {
        let queue_name = self.connector.queue;
        match self.role {
            Role::Publisher => tracing::info!(event = "queue_publisher_connected", queue_name),
            Role::Listener => tracing::info!(event = "queue_listener_starting_consumption", queue_name),
            Role::Declarer => tracing::info!(event = "queue_declared", queue_name),
        }
    }

    fn report_failure(&self, error: &Error) {
        metrics::failed(self.connector.name, error);
        let queue_name = self.connector.queue;
        let (queue_host, queue_port) = (&self.connector.endpoint.host, self.connector.endpoint.port);
        let cause = chain(error);
        let (event, info, error) = match self.role {
            Role::Publisher => ("queue_publisher_failed_to_connect", Some(cause), None),
            Role::Declarer => ("queue_not_declared", Some(cause), None),
            Role::Listener => ("queue_listener_failed_to_connect", None, Some(cause)),
        };
        tracing::warn!(event, queue_host, queue_port, queue_name, info, error);
    }
}
