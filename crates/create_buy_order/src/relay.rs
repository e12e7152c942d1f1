//! The relay: publishes the messages of the outbox, and deletes each only after the broker has confirmed it.
//!
//! At least once: a relay that dies between confirm and deletion, or works on after its lease has ended, causes a message to be sent again.
//! Consumers are idempotent. The relay does not know what the messages say.

mod lease;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{self, Connector, Outgoing, Publisher, Role, Session, Supervisor, Unconfirmed, Worker};
use common::database::{Pool, with_connection};
use common::logging::chain;
use common::retry::Backoff;
use common::trace_context::context_of;
use common::{endpoints, trace};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::lease::Lease;
use crate::db::outbox::{self, Message};

/// For the relay's connections to the write model. If the server crashes, a lost lease is taken again, and a lost deletion sends a message
/// once more: neither has to wait for the disk.
const SESSION_SETTINGS: [(&str, &str); 1] = [("synchronous_commit", "off")];

/// How often the outbox is read without a wake-up: for messages that other replicas wrote.
const POLL: Duration = Duration::from_millis(100);

/// How often a relay that stands by asks for the lease.
const STANDBY_POLL: Duration = Duration::from_millis(500);

/// How long messages gather, to be relayed together: relaying one costs as much as relaying a dozen. With 10 ms instead, a single client's
/// orders take a sixth longer, because the relay and everything behind it compete with them for the processors.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// How long a broker that hangs may take to confirm what is in flight after the process was asked to stop.
const LAST_WINDOW_TIMEOUT: Duration = Duration::from_secs(2);

/// Why messages could not be read or published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Interrupted {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("the write model failed")]
    Database(#[from] sqlx::Error),
}

/// Relays messages until the process is asked to stop. Outages of broker or database only delay it. Of several relays one works, and the
/// others stand by.
///
/// `wake` is to be notified after each commit that wrote to the outbox.
pub(crate) async fn run(
    pool: Pool,
    queue: endpoints::Queue,
    wake: Arc<Notify>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let pool = pool.with_settings(&SESSION_SETTINGS)?;
    let mut relay = Relay {
        lease: Lease::new(pool.clone()),
        pool,
        broker: queue.clone(),
        wake,
        stopping: stopping.clone(),
    };
    let connector = Connector {
        endpoint: queue,
        queue: BUY_ORDER_QUEUE,
        name: "create_buy_order outbox relay",
    };
    let supervisor = Supervisor::new(connector, Role::Publisher, stopping);
    // It connects before it asks for the lease: a relay that cannot reach the broker does not keep the others from working.
    supervisor.run(None, &mut relay).await;
    Ok(())
}

struct Relay {
    pool: Pool,
    lease: Lease,
    broker: endpoints::Queue,
    wake: Arc<Notify>,
    stopping: CancellationToken,
}

impl Worker for Relay {
    async fn work(&mut self, session: Session, backoff: &mut Backoff) -> Result<(), broker::Error> {
        let Some(publisher) = self.stopping.run_until_cancelled(Publisher::on(session)).await else {
            return Ok(());
        };
        let mut publisher = publisher?;
        let ended = self.relay(&mut publisher, backoff).await;
        self.lease.release().await;
        ended?;
        publisher.session.close().await;
        Ok(())
    }
}

impl Relay {
    /// Relays until the broker fails or the process is asked to stop. When the database fails, the connection to the broker is kept.
    async fn relay(&mut self, publisher: &mut Publisher, backoff: &mut Backoff) -> Result<(), broker::Error> {
        // No query is dropped half-way: the token is looked at between them.
        while !self.stopping.is_cancelled() {
            if !publisher.session.connected() {
                return Err(broker::Error::Closed);
            }
            match self.step(publisher, backoff).await {
                Ok(()) => {}
                Err(Interrupted::Broker(error)) => return Err(error),
                Err(error @ Interrupted::Database(_)) => {
                    tracing::warn!(event = "outbox_relay_failed", info = chain(&error));
                    backoff.pause(&self.stopping).await;
                }
            }
        }
        Ok(())
    }

    /// Relays the oldest messages, or waits for some or for the lease.
    async fn step(&mut self, publisher: &mut Publisher, backoff: &mut Backoff) -> Result<(), Interrupted> {
        if !self.lease.hold().await? {
            let standby = tokio::time::sleep(STANDBY_POLL);
            self.stopping.run_until_cancelled(standby).await;
            return Ok(());
        }
        let read_at = Instant::now();
        let max = i64::try_from(broker::WINDOW).unwrap_or(i64::MAX);
        let messages = with_connection(&self.pool, async |connection| {
            outbox::oldest(connection, max).await
        })
        .await?;
        if messages.is_empty() {
            self.wait_for_messages().await;
            return Ok(());
        }
        self.publish(publisher, &messages).await?;
        backoff.reset();
        if messages.len() < broker::WINDOW {
            tokio::time::sleep_until((read_at + GATHERED_FOR).into()).await;
        }
        Ok(())
    }

    async fn wait_for_messages(&self) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = self.wake.notified() => tokio::time::sleep(GATHERED_FOR).await,
            () = tokio::time::sleep(POLL) => {}
        }
    }

    /// Publishes messages, and deletes those that are confirmed.
    async fn publish(&self, publisher: &mut Publisher, messages: &[Message]) -> Result<(), Interrupted> {
        let spans = self.spans(messages);
        let outgoing: Vec<Outgoing> = messages
            .iter()
            .zip(&spans)
            .map(|(message, span)| Outgoing::event(&self.broker.exchange, crate::NAME, &message.event, span))
            .collect();
        let results = self.publish_in_time(publisher, &outgoing).await;
        let results = results.inspect_err(|error| {
            for span in &spans {
                trace::fail(span, error.kind(), error.to_string());
            }
        })?;
        let mut confirmed = Vec::with_capacity(messages.len());
        let mut first_reason = None;
        for ((message, result), span) in messages.iter().zip(results).zip(spans) {
            match result {
                Ok(()) => confirmed.push(message.id),
                Err(reason) => {
                    trace::fail(&span, reason.kind(), reason.to_string());
                    first_reason.get_or_insert(reason);
                }
            }
            span.span().end();
        }
        with_connection(&self.pool, async |connection| {
            outbox::delete(connection, &confirmed).await
        })
        .await?;
        match first_reason {
            None => Ok(()),
            Some(reason) => {
                let count = messages.len() - confirmed.len();
                Err(broker::Error::NotConfirmed { count, reason }.into())
            }
        }
    }

    /// A span for each message, under the request that made it. It ends when the broker has answered.
    fn spans(&self, messages: &[Message]) -> Vec<Context> {
        let span = |message: &Message| {
            let cause = context_of(message.traceparent.as_deref(), message.tracestate.as_deref());
            broker::publish_span(&self.broker, &message.event, &cause)
        };
        messages.iter().map(span).collect()
    }

    /// Publishing has its own timeout, except while the broker blocks the connection. A stop sets a shorter one, because the process has only
    /// seconds left.
    async fn publish_in_time(
        &self,
        publisher: &mut Publisher,
        outgoing: &[Outgoing],
    ) -> Result<Vec<Result<(), Unconfirmed>>, broker::Error> {
        let too_late = pin!(async {
            self.stopping.cancelled().await;
            tokio::time::sleep(LAST_WINDOW_TIMEOUT).await;
        });
        tokio::select! {
            results = publisher.publish_all(outgoing) => results,
            () = too_late => Err(broker::Error::TimedOut { doing: "publish before the process stops", limit: LAST_WINDOW_TIMEOUT }),
        }
    }
}
