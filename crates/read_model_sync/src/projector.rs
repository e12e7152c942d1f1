//! The projector: takes deliveries in batches, writes them to the read model, and acknowledges after the commit.

use std::time::Duration;

use common::broker::{self, Backoff, Listening, Outgoing, Publishing, Verdict};
use common::database::Pool;
use common::{endpoints, trace};
use lapin::message::Delivery;
use opentelemetry::Context;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::delivery::{self, Message, Outcome};
use crate::metrics::METRICS;

/// The name of the connection that consumes.
pub const CONNECTION: &str = "read_model_sync";

/// Deliveries in one insert.
const BATCH: usize = 500;

/// The next batch arrives while this one is written.
const PREFETCH: u16 = 1000;

/// A broker that takes messages confirms within milliseconds; shorter than the drain deadline.
const CONFIRMED_AFTER_STOP: Duration = Duration::from_secs(2);

/// Projects until it is told to stop; outages of broker or database only delay it.
pub struct Projector {
    pool: Pool,
    queue: endpoints::Queue,
    backoff: Backoff,
    dead_letters: Option<Publishing>,
    stopping: CancellationToken,
}

impl Projector {
    /// A projector into the database of `pool`.
    #[must_use]
    pub fn new(pool: Pool, queue: endpoints::Queue, stopping: CancellationToken) -> Self {
        let backoff = Backoff::starting_at(queue.connect_retry);
        Self {
            pool,
            queue,
            backoff,
            dead_letters: None,
            stopping,
        }
    }

    /// Connects to the queue, however long it takes; nothing when the process was asked to stop.
    pub async fn listen(&mut self) -> Option<Listening> {
        broker::listen(
            &self.queue,
            CONNECTION,
            PREFETCH,
            &mut self.backoff,
            &self.stopping,
        )
        .await
    }

    /// Projects until the process is asked to stop: finishes the batch in hand, and what is not acknowledged goes back to the queue.
    ///
    /// # Errors
    /// None so far; the signature is that of a service's task.
    pub async fn run(mut self, first: Listening) -> anyhow::Result<()> {
        let mut next = Some(first);
        while let Some(mut listening) = next {
            match self.consume(&mut listening).await {
                Ok(()) => {
                    listening.close().await;
                    return Ok(());
                }
                Err(error) => Listening::report_failure(&self.queue, &error),
            }
            drop(listening);
            if !self.backoff.pause(&self.stopping).await {
                return Ok(());
            }
            next = self.listen().await;
        }
        Ok(())
    }

    async fn consume(&mut self, listening: &mut Listening) -> Result<(), broker::Error> {
        let stopping = self.stopping.clone();
        while let Some(batch) = stopping.run_until_cancelled(listening.next_batch(BATCH)).await {
            self.settle(batch?, listening).await?;
        }
        Ok(())
    }

    /// Brings a batch to its end: every delivery applied, already applied, or moved to the dead letters; then, and only then, acknowledges.
    /// Leaves it unacknowledged when the process is asked to stop while the database is away.
    async fn settle(&mut self, batch: Vec<Delivery>, listening: &mut Listening) -> Result<(), broker::Error> {
        let Some(last) = batch.len().checked_sub(1) else {
            return Ok(());
        };
        METRICS.took(batch.len());
        let mut waiting: Vec<Message<'_>> = Vec::with_capacity(batch.len());
        let mut hopeless = Vec::new();
        for delivery in &batch {
            let trace = broker::process_span(delivery.exchange.as_str(), &delivery.properties);
            match Message::read(delivery, &trace) {
                Ok(message) => waiting.push(message),
                Err(reason) => hopeless.push(Hopeless::new(delivery, &trace, None, reason)),
            }
        }
        while !waiting.is_empty() {
            waiting = self.project(waiting, &mut hopeless).await;
            if waiting.is_empty() {
                break;
            }
            if !self.backoff.pause(&self.stopping).await {
                return Ok(());
            }
            if !listening.consumer.connected() {
                return Err(broker::Error::Closed);
            }
        }
        if hopeless.is_empty() {
            listening.consumer.acknowledge_through(&batch[last]).await?;
        } else {
            acknowledge_others(&batch, &hopeless, listening).await?;
            self.lay_aside(&hopeless, listening).await?;
        }
        self.backoff.reset();
        Ok(())
    }

    /// Tries once to write these messages; returns those that have to be tried again.
    async fn project<'a>(
        &self,
        messages: Vec<Message<'a>>,
        hopeless: &mut Vec<Hopeless<'a>>,
    ) -> Vec<Message<'a>> {
        let outcomes = db::apply(&self.pool, &messages).await;
        let mut again = Vec::new();
        let mut why = None;
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Applied => {
                    METRICS.applied(message.order.created_at);
                    message.report_applied();
                }
                Outcome::AlreadyApplied => METRICS.repeated.inc(),
                Outcome::Permanent(reason) => {
                    let Message {
                        delivery,
                        order,
                        trace,
                    } = message;
                    hopeless.push(Hopeless::new(delivery, &trace, Some(order.id), reason));
                }
                Outcome::Transient(reason) => {
                    METRICS.postponed.inc();
                    why.get_or_insert(reason);
                    again.push(message);
                }
            }
        }
        if let Some(info) = why {
            let waiting = again.len();
            tracing::warn!(
                event = "model_update_failed",
                model = "buy_order_read_model",
                waiting,
                info
            );
        }
        again
    }

    /// Moves messages to the dead letters, each acknowledged when its copy there is confirmed: a crash in between leaves two copies, never
    /// none. Leaves them unacknowledged when the process is asked to stop and the broker does not confirm soon.
    async fn lay_aside(
        &mut self,
        hopeless: &[Hopeless<'_>],
        listening: &Listening,
    ) -> Result<(), broker::Error> {
        let letters: Vec<Outgoing> = hopeless
            .iter()
            .map(|message| delivery::dead_letter(message.delivery, &self.queue.exchange, &message.reason))
            .collect();
        let stopping = self.stopping.clone();
        let given_up = async {
            stopping.cancelled().await;
            tokio::time::sleep(CONFIRMED_AFTER_STOP).await;
        };
        let published = tokio::select! {
            published = self.publish(&letters) => published,
            () = given_up => return Ok(()),
        };
        let mut refused = None;
        for (message, verdict) in hopeless.iter().zip(published?) {
            match verdict {
                Verdict::Confirmed => {
                    METRICS.dead_lettered.inc();
                    listening.consumer.acknowledge(message.delivery).await?;
                }
                Verdict::NotConfirmed(reason) => refused = Some(reason),
            }
        }
        match refused {
            None => Ok(()),
            Some(reason) => Err(broker::Error::NotConfirmed { count: 1, reason }),
        }
    }

    /// On a connection of its own, made when there is something to publish.
    async fn publish(&mut self, letters: &[Outgoing]) -> Result<Vec<Verdict>, broker::Error> {
        let mut publishing = match self.dead_letters.take() {
            Some(publishing) if publishing.session.connected() => publishing,
            _ => Publishing::open(&self.queue, "read_model_sync dead letters").await?,
        };
        let verdicts = publishing.publisher.publish_all(letters).await?;
        self.dead_letters = Some(publishing);
        Ok(verdicts)
    }
}

/// A message that can never be applied.
struct Hopeless<'a> {
    delivery: &'a Delivery,
    reason: String,
}

impl<'a> Hopeless<'a> {
    fn new(delivery: &'a Delivery, trace: &Context, id: Option<i64>, reason: String) -> Self {
        trace::fail(trace, reason.clone());
        let _in_its_trace = trace.clone().attach();
        tracing::error!(event = "failed_to_sync_buy_order_read_model", id, info = reason);
        Self { delivery, reason }
    }
}

async fn acknowledge_others(
    batch: &[Delivery],
    hopeless: &[Hopeless<'_>],
    listening: &Listening,
) -> Result<(), broker::Error> {
    let is_hopeless = |delivery: &Delivery| {
        hopeless
            .iter()
            .any(|message| message.delivery.delivery_tag == delivery.delivery_tag)
    };
    for delivery in batch.iter().filter(|delivery| !is_hopeless(delivery)) {
        listening.consumer.acknowledge(delivery).await?;
    }
    Ok(())
}
