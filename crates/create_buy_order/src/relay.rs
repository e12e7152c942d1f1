//! The relay: takes messages from the outbox to the broker, and deletes each only when the broker has confirmed it.
//!
//! At least once: a relay that dies between confirm and deletion leaves the message to be sent again, and so does one that outlives its
//! lease. Consumers bear that. It knows nothing of what it sends.

mod lease;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::broker::{self, Backoff, Outgoing, Publishing, Verdict};
use common::database::{Pool, with_connection};
use common::trace_context::context_of;
use common::{endpoints, trace};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::lease::Lease;
use crate::db::outbox::{self, Message};

/// Of the relay's connections to the write model. A lease that is lost when the server crashes is taken again, and a deletion that is lost
/// sends a message once more, which consumers bear: neither waits for the disk.
pub const SESSION_SETTINGS: [(&str, &str); 1] = [("synchronous_commit", "off")];

/// How often the outbox is read without being told: for messages that other replicas wrote.
const POLL: Duration = Duration::from_millis(100);

/// How often a relay that stands by asks for the lease.
const STANDBY_POLL: Duration = Duration::from_millis(500);

/// How often it is made sure that the queue is still the one that was declared. Nobody tells a publisher that somebody replaced it by one that
/// loses messages; what such a one takes is confirmed, and no longer ours.
const DECLARE_EVERY: Duration = Duration::from_secs(5);

/// How long messages gather, to be relayed together: one alone costs as much as a dozen. With 10 ms an order alone is answered a sixth later,
/// because the relay and all behind it want the processors of the orders that follow.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// A broker that hangs gets this long to confirm what is on its way once the process was asked to stop.
const LAST_WINDOW_LIMIT: Duration = Duration::from_secs(2);

/// Why the relay had to stop what it did.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("the write model failed")]
    Database(#[source] sqlx::Error),
}

/// Relays messages until the process is asked to stop. Outages of broker or database only delay it. Of several relays one works, and the
/// others stand by.
///
/// `wake` is to be notified after each commit that wrote to the outbox.
///
/// # Errors
/// When its pool of connections cannot be built.
pub async fn run(
    pool: Pool,
    queue: endpoints::Queue,
    wake: Arc<Notify>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let pool = pool.with_settings(&SESSION_SETTINGS)?;
    let mut lease = Lease::new(&pool);
    let mut backoff = Backoff::starting_at(queue.connect_retry);
    let name = "create_buy_order outbox relay";
    // Connected before it asks for the lease: a relay that cannot reach the broker does not keep the others from it.
    while let Some(mut publishing) = broker::connect_publisher(&queue, name, &mut backoff, &stopping).await {
        let mut relay = Relay {
            pool: &pool,
            queue: &queue,
            lease: &mut lease,
            declared_at: Instant::now(),
            wake: &wake,
            stopping: &stopping,
        };
        let interrupted = loop {
            match relay.work(&mut publishing, &mut backoff).await {
                Ok(()) => {
                    relay.lease.give_back().await;
                    publishing.session.close().await;
                    return Ok(());
                }
                Err(Interrupted::Broker(error)) => break error,
                // The connection to the broker is still good.
                Err(error @ Interrupted::Database(_)) => {
                    let info = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(event = "outbox_relay_failed", info);
                }
            }
            if !backoff.pause(&stopping).await {
                relay.lease.give_back().await;
                return Ok(());
            }
        };
        relay.lease.give_back().await;
        Publishing::report_failure(&queue, &interrupted);
        // A message that was returned had no queue to go to: connecting anew declares what is missing.
        drop(publishing);
        if !backoff.pause(&stopping).await {
            break;
        }
    }
    Ok(())
}

struct Relay<'a, 'p> {
    pool: &'a Pool,
    queue: &'a endpoints::Queue,
    lease: &'a mut Lease<'p>,
    declared_at: Instant,
    wake: &'a Notify,
    stopping: &'a CancellationToken,
}

impl Relay<'_, '_> {
    /// Relays until something fails, or the process is asked to stop. No query is ever dropped half-way.
    async fn work(&mut self, publishing: &mut Publishing, backoff: &mut Backoff) -> Result<(), Interrupted> {
        while !self.stopping.is_cancelled() {
            if !publishing.session.connected() {
                return Err(broker::Error::Closed.into());
            }
            if self.declared_at.elapsed() >= DECLARE_EVERY {
                publishing.session.check_declarations(self.queue).await?;
                self.declared_at = Instant::now();
            }
            if !self.lease.hold().await.map_err(Interrupted::Database)? {
                self.stopping
                    .run_until_cancelled(tokio::time::sleep(STANDBY_POLL))
                    .await;
                continue;
            }
            let read_at = Instant::now();
            let max = i64::try_from(broker::WINDOW).unwrap_or(i64::MAX);
            let messages = with_connection(self.pool, async |connection| {
                outbox::oldest(connection, max).await
            });
            let messages = messages.await.map_err(Interrupted::Database)?;
            if messages.is_empty() {
                self.wait_for_messages().await;
                continue;
            }
            self.publish(publishing, &messages).await?;
            backoff.reset();
            if messages.len() < broker::WINDOW {
                tokio::time::sleep_until((read_at + GATHERED_FOR).into()).await;
            }
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
    async fn publish(&self, publishing: &mut Publishing, messages: &[Message]) -> Result<(), Interrupted> {
        let spans = self.spans(messages);
        let outgoing: Vec<Outgoing> = messages
            .iter()
            .zip(&spans)
            .map(|(message, span)| Outgoing::event(&self.queue.exchange, &message.event, span))
            .collect();
        let verdicts = match self.publish_in_time(publishing, &outgoing).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                for span in &spans {
                    trace::fail(span, error.to_string());
                }
                return Err(error.into());
            }
        };
        let mut confirmed = Vec::with_capacity(messages.len());
        let mut first_reason = None;
        for ((message, verdict), span) in messages.iter().zip(verdicts).zip(spans) {
            match verdict {
                Verdict::Confirmed => confirmed.push(message.id),
                Verdict::NotConfirmed(reason) => {
                    trace::fail(&span, reason.clone());
                    first_reason.get_or_insert(reason);
                }
            }
            span.span().end();
        }
        let deleted = with_connection(self.pool, async |connection| {
            outbox::delete(connection, &confirmed).await
        });
        deleted.await.map_err(Interrupted::Database)?;
        match first_reason {
            None => Ok(()),
            Some(reason) => Err(Interrupted::Broker(broker::Error::NotConfirmed {
                count: messages.len() - confirmed.len(),
                reason,
            })),
        }
    }

    /// A span for each, under the request that made the message; they end when the broker has answered.
    fn spans(&self, messages: &[Message]) -> Vec<Context> {
        let span = |message: &Message| {
            let cause = context_of(message.traceparent.as_deref(), message.tracestate.as_deref());
            broker::publish_span(&self.queue.exchange, &message.event, &cause)
        };
        messages.iter().map(span).collect()
    }

    /// Publishing has a limit of its own, and is as long as it takes while the broker has blocked us. A stop shortens it, because the process
    /// has only seconds left.
    async fn publish_in_time(
        &self,
        publishing: &mut Publishing,
        outgoing: &[Outgoing],
    ) -> Result<Vec<Verdict>, broker::Error> {
        let too_late = pin!(async {
            self.stopping.cancelled().await;
            tokio::time::sleep(LAST_WINDOW_LIMIT).await;
        });
        tokio::select! {
            verdicts = publishing.publisher.publish_all(outgoing) => verdicts,
            () = too_late => Err(broker::Error::TimedOut { doing: "publish before the process stops", limit: LAST_WINDOW_LIMIT }),
        }
    }
}
