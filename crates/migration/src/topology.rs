//! Declares the exchanges and queues of the broker, and keeps them: what somebody deletes comes back. No service may declare them itself.

use std::time::Duration;

use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{Connector, Error, Role, Session, Supervisor, Worker};
use common::endpoints::Queue;
use common::retry::Backoff;
use tokio_util::sync::CancellationToken;

/// The name of the connection.
pub(crate) const CONNECTION: &str = "migration";

/// How often everything is declared again. Until then the relay keeps what it cannot publish, and a queue that was replaced by a lesser one
/// gets messages.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Connects to the broker, declares everything, and logs it.
pub(crate) fn supervisor(queue: Queue, stopping: CancellationToken) -> Supervisor {
    let connector = Connector {
        endpoint: queue,
        queue: BUY_ORDER_QUEUE,
        name: CONNECTION,
    };
    Supervisor::new(connector, Role::Declarer, stopping)
}

/// Declares everything again and again, until the process is asked to stop.
pub(crate) struct Keeper {
    pub(crate) stopping: CancellationToken,
}

impl Worker for Keeper {
    async fn work(&mut self, session: Session, backoff: &mut Backoff) -> Result<(), Error> {
        backoff.reset();
        let pause = || tokio::time::sleep(AGAIN_AFTER);
        while self.stopping.run_until_cancelled(pause()).await.is_some() {
            session.declare().await?;
        }
        session.close().await;
        Ok(())
    }
}
