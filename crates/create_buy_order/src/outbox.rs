//! The relay: takes events from the outbox to the broker, and removes each only when the broker has confirmed it.
//!
//! At least once: a relay that dies between confirm and removal leaves the event to be published again. Consumers bear that.

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

use self::lease::{LEASE, Lease, RENEW_EVERY};
use crate::db::outbox::{self, Claimed};

/// Of the relay's connections to the write model. A claim that is lost when the server crashes is made again, and a removal that is lost
/// publishes an event once more, which consumers bear: neither waits for the disk.
pub const SESSION_SETTINGS: [(&str, &str); 1] = [("synchronous_commit", "off")];

/// How often the outbox is looked at without being told: events of another replica that died, or whose wake-up was missed.
const POLL: Duration = Duration::from_millis(500);

/// How often it is made sure that the queue is still the one that was declared. Nobody tells a publisher that somebody replaced it by one that
/// loses messages; what such a one takes is confirmed, and no longer ours.
const DECLARE_EVERY: Duration = Duration::from_secs(5);

/// How long events gather, to be relayed together: one alone costs as much as a dozen. With 10 ms an order alone is answered a sixth later,
/// because the relay and all behind it want the processors of the orders that follow.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// A broker that hangs gets this long to confirm what is on its way once the process was asked to stop.
const LAST_WINDOW_LIMIT: Duration = Duration::from_secs(2);

/// Why the relay had to stop what it did, and must connect anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("the write model failed")]
    Database(#[source] anyhow::Error),
}

/// Relays events until the process is asked to stop. Outages of broker or database only delay it. Several relays may run side by side.
///
/// `wake` is to be notified after each commit that wrote to the outbox.
///
/// # Errors
/// When its pool of connections cannot be built.
pub async fn relay(
    pool: Pool,
    queue: endpoints::Queue,
    wake: Arc<Notify>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let pool = pool.with_settings(&SESSION_SETTINGS)?;
    let mut backoff = Backoff::starting_at(queue.connect_retry);
    let name = "create_buy_order outbox relay";
    while let Some(mut publishing) = broker::connect_publisher(&queue, name, &mut backoff, &stopping).await {
        let mut relay = Relay {
            pool: &pool,
            queue: &queue,
            declared_at: Instant::now(),
            wake: &wake,
            stopping: &stopping,
        };
        let interrupted = loop {
            match relay.run(&mut publishing, &mut backoff).await {
                Ok(()) => {
                    publishing.session.close().await;
                    return Ok(());
                }
                Err(Interrupted::Broker(error)) => break error,
                // The connection to the broker is still good.
                Err(Interrupted::Database(error)) => report_failure(&error),
            }
            if !backoff.pause(&stopping).await {
                return Ok(());
            }
        };
        Publishing::report_failure(&queue, &interrupted);
        // A message that was returned had no queue to go to: connecting anew declares what is missing.
        drop(publishing);
        if !backoff.pause(&stopping).await {
            break;
        }
    }
    Ok(())
}

fn report_failure(error: &anyhow::Error) {
    tracing::warn!(event = "outbox_relay_failed", info = format!("{error:#}"));
}

struct Relay<'a> {
    pool: &'a Pool,
    queue: &'a endpoints::Queue,
    declared_at: Instant,
    wake: &'a Notify,
    stopping: &'a CancellationToken,
}

impl Relay<'_> {
    /// Relays until something fails, or the process is asked to stop. No query is ever dropped half-way.
    async fn run(&mut self, publishing: &mut Publishing, backoff: &mut Backoff) -> Result<(), Interrupted> {
        while !self.stopping.is_cancelled() {
            if !publishing.session.connected() {
                return Err(broker::Error::Closed.into());
            }
            if self.declared_at.elapsed() >= DECLARE_EVERY {
                publishing.session.check_declarations(self.queue).await?;
                self.declared_at = Instant::now();
            }
            let claimed_at = Instant::now();
            let most = i64::try_from(broker::WINDOW).unwrap_or(i64::MAX);
            let events = with_connection(self.pool, async |connection| {
                outbox::claim(connection, most, LEASE).await
            });
            let events = events
                .await
                .map_err(|error| database(error, "the outbox could not be claimed"))?;
            match Lease::of(&events, claimed_at) {
                None => self.wait_for_events().await,
                Some(lease) => {
                    self.publish(publishing, &events, lease).await?;
                    backoff.reset();
                    let is_backlog = events.len() == broker::WINDOW;
                    if !is_backlog {
                        tokio::time::sleep_until((claimed_at + GATHERED_FOR).into()).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn wait_for_events(&self) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = self.wake.notified() => tokio::time::sleep(GATHERED_FOR).await,
            () = tokio::time::sleep(POLL) => {}
        }
    }

    async fn publish(
        &self,
        publishing: &mut Publishing,
        events: &[Claimed],
        lease: Lease,
    ) -> Result<(), Interrupted> {
        let spans = self.spans(events);
        let published = match self.messages(events, &spans) {
            Ok(messages) => self.publish_in_time(publishing, &messages, &lease).await,
            Err(error) => return self.release(lease.ids(), &lease, error).await,
        };
        let verdicts = match published {
            Ok(verdicts) => verdicts,
            Err(error) => {
                for span in &spans {
                    trace::fail(span, error.to_string());
                }
                return self.release(lease.ids(), &lease, error.into()).await;
            }
        };
        let mut confirmed = Vec::with_capacity(events.len());
        let mut not_confirmed = Vec::new();
        let mut first_reason = None;
        for ((event, verdict), span) in events.iter().zip(verdicts).zip(spans) {
            match verdict {
                Verdict::Confirmed => confirmed.push(event.id),
                Verdict::NotConfirmed(reason) => {
                    not_confirmed.push(event.id);
                    trace::fail(&span, reason.clone());
                    first_reason.get_or_insert(reason);
                }
            }
            span.span().end();
        }
        let removed = with_connection(self.pool, async |connection| {
            outbox::remove(connection, &confirmed, lease.until()).await
        });
        let removed = removed
            .await
            .map_err(|error| database(error, "confirmed events could not be removed"))?;
        if removed < confirmed.len() as u64 {
            report_failure(&anyhow::anyhow!(
                "the lease was over too soon: {} of {} confirmed events are another relay's now, and are published once more",
                confirmed.len() as u64 - removed,
                confirmed.len(),
            ));
        }
        match first_reason {
            None => Ok(()),
            Some(reason) => {
                let error = broker::Error::NotConfirmed {
                    count: not_confirmed.len(),
                    reason,
                };
                self.release(&not_confirmed, &lease, error.into()).await
            }
        }
    }

    /// A span for each, under the request that made the order; they end when the broker has spoken.
    fn spans(&self, events: &[Claimed]) -> Vec<Context> {
        let span = |claimed: &Claimed| {
            let cause = context_of(claimed.traceparent.as_deref(), claimed.tracestate.as_deref());
            broker::publish_span(&self.queue.exchange, claimed.event.external_id, &cause)
        };
        events.iter().map(span).collect()
    }

    fn messages(&self, events: &[Claimed], spans: &[Context]) -> Result<Vec<Outgoing>, Interrupted> {
        events
            .iter()
            .zip(spans)
            .map(|(claimed, span)| Outgoing::buy_order_created(&self.queue.exchange, &claimed.event, span))
            .collect::<Result<_, _>>()
            .map_err(|error| Interrupted::Database(error.into()))
    }

    /// Publishing has a limit of its own, and is as long as it takes while the broker has blocked us: meanwhile the lease is renewed. A stop
    /// shortens it, because the process has only seconds left.
    async fn publish_in_time(
        &self,
        publishing: &mut Publishing,
        messages: &[Outgoing],
        lease: &Lease,
    ) -> Result<Vec<Verdict>, broker::Error> {
        let may_publish = || lease.holds();
        let mut published = pin!(publishing.publisher.publish_while(messages, &may_publish));
        let mut too_late = pin!(async {
            self.stopping.cancelled().await;
            tokio::time::sleep(LAST_WINDOW_LIMIT).await;
        });
        loop {
            tokio::select! {
                verdicts = &mut published => return verdicts,
                () = &mut too_late => return Err(broker::Error::TimedOut { doing: "publish before the process stops", limit: LAST_WINDOW_LIMIT }),
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            // Not beside the publishing, but to its end: a renewal that is dropped half-way leaves unknown until when the claim holds.
            if let Err(error) = lease.renew(self.pool).await {
                report_failure(&anyhow::Error::from(error).context("the lease could not be renewed"));
            }
        }
    }

    /// Gives the events back, so that no one has to wait for the lease, and passes the failure on.
    async fn release(&self, ids: &[i64], lease: &Lease, because: Interrupted) -> Result<(), Interrupted> {
        let released = with_connection(self.pool, async |connection| {
            outbox::release(connection, ids, lease.until()).await
        });
        if let Err(error) = released.await {
            report_failure(
                &anyhow::Error::from(error).context("the lease could not be given back, and will expire"),
            );
        }
        Err(because)
    }
}

fn database(error: sqlx::Error, what_failed: &'static str) -> Interrupted {
    Interrupted::Database(anyhow::Error::from(error).context(what_failed))
}
