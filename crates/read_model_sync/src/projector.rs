//! The projector: takes deliveries in batches, writes them to the read model, and acknowledges after the commit.

use std::time::Duration;

use common::broker::{self, Backoff, Listening};
use common::database::Pool;
use common::{endpoints, trace};
use lapin::message::Delivery;
use opentelemetry::Context;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::delivery::{self, Message, Outcome};
use crate::letters::Letters;
use crate::metrics::METRICS;

/// The name of the connection that consumes.
pub const CONNECTION: &str = "read_model_sync";

/// Deliveries in one insert.
const BATCH: usize = 500;

/// The next batch arrives while this one is written.
const PREFETCH: u16 = 1000;

/// Dead letters that the broker does not take are held up to this number; with more, nothing else is taken until the next try.
const MOST_HELD: usize = 50_000;

/// How soon a letter is acknowledged that was taken while no deliveries come.
const LETTER_PATIENCE: Duration = Duration::from_millis(20);

/// Nothing but deliveries is waited for.
const NO_HURRY: Duration = Duration::from_secs(60);

/// How long it is waited for room for one more letter.
const ROOM_LIMIT: Duration = Duration::from_secs(1);

/// How long letters are waited for before all deliveries are given back.
const LETTERS_LIMIT: Duration = Duration::from_secs(5);

/// A broker that takes messages confirms within milliseconds; shorter than the drain deadline.
const CONFIRMED_AFTER_STOP: Duration = Duration::from_secs(2);

/// Projects until it is told to stop; outages of broker or database only delay it.
pub struct Projector {
    pool: Pool,
    queue: endpoints::Queue,
    backoff: Backoff,
    letters: Letters,
    stopping: CancellationToken,
}

impl Projector {
    /// A projector into the database of `pool`.
    #[must_use]
    pub fn new(pool: Pool, queue: endpoints::Queue, stopping: CancellationToken) -> Self {
        let backoff = Backoff::starting_at(queue.connect_retry);
        Self {
            pool,
            letters: Letters::start(queue.clone()),
            queue,
            backoff,
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
        self.letters.begin();
        let stopping = self.stopping.clone();
        loop {
            if listening.consumer.overflowed() {
                // Their deliveries are given back with the others: each would become a second letter.
                let _ = timeout(LETTERS_LIMIT, self.wait_for_letters(listening)).await;
                listening.begin_asking().await?;
                self.letters.begin();
            }
            self.tend_letters(listening).await?;
            let next = listening.next_batch(BATCH, self.patience());
            let Some(batch) = stopping.run_until_cancelled(next).await else {
                break;
            };
            self.settle(batch?, listening).await?;
        }
        let _ = timeout(CONFIRMED_AFTER_STOP, self.wait_for_letters(listening)).await;
        Ok(())
    }

    fn patience(&self) -> Duration {
        if self.letters.any_in_flight() {
            LETTER_PATIENCE
        } else {
            self.letters.until_next_try().unwrap_or(NO_HURRY)
        }
    }

    /// Brings a batch to its end: every delivery applied, already applied, or on its way to the dead letters; then, and only then,
    /// acknowledges. Leaves it unacknowledged when the process is asked to stop while the database is away.
    async fn settle(&mut self, batch: Vec<Delivery>, listening: &mut Listening) -> Result<(), broker::Error> {
        if batch.is_empty() {
            return Ok(());
        }
        METRICS.took(batch.len());
        let mut tags: Vec<u64> = batch.iter().map(|delivery| delivery.delivery_tag).collect();
        let mut waiting: Vec<Message> = Vec::with_capacity(batch.len());
        let mut hopeless = Vec::new();
        for delivery in batch {
            let trace = broker::process_span(delivery.exchange.as_str(), &delivery.properties);
            match Message::read(delivery, trace.clone()) {
                Ok(message) => waiting.push(message),
                Err((delivery, reason)) => hopeless.push(Hopeless::new(delivery, &trace, None, reason)),
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
        tags.retain(|tag| {
            !hopeless
                .iter()
                .any(|message| message.delivery.delivery_tag == *tag)
        });
        match tags.last() {
            Some(last) if hopeless.is_empty() && !self.letters.any_open() => {
                listening.consumer.acknowledge_through(*last).await?;
            }
            _ => {
                for tag in tags {
                    listening.consumer.acknowledge(tag).await?;
                }
            }
        }
        for message in hopeless {
            self.lay_aside(message, listening).await?;
        }
        self.backoff.reset();
        Ok(())
    }

    /// Tries once to write these messages; returns those that have to be tried again.
    async fn project(&self, messages: Vec<Message>, hopeless: &mut Vec<Hopeless>) -> Vec<Message> {
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

    /// Sends a message to the dead letters. It is acknowledged when its copy there is confirmed: a crash in between leaves two copies, never
    /// none.
    async fn lay_aside(&mut self, message: Hopeless, listening: &Listening) -> Result<(), broker::Error> {
        let Hopeless { delivery, reason } = message;
        let tag = delivery.delivery_tag;
        while !self.letters.has_room(delivery.data.len()) {
            match timeout(ROOM_LIMIT, self.letters.next_fate()).await {
                Ok(Some(fate)) => self.note(fate, listening).await?,
                Ok(None) | Err(_) => {
                    self.letters
                        .hold(tag, "the broker has not confirmed the letters before it");
                    return Ok(());
                }
            }
        }
        let frame_max = listening.session.frame_max();
        let letter = delivery::dead_letter(delivery, &self.queue.exchange, &reason, frame_max);
        self.letters.publish(tag, letter);
        Ok(())
    }

    /// Acknowledges what is among the dead letters now, and gives back what is to be tried again.
    async fn tend_letters(&mut self, listening: &mut Listening) -> Result<(), broker::Error> {
        while let Some(fate) = self.letters.known_fate() {
            self.note(fate, listening).await?;
        }
        if self.letters.held() >= MOST_HELD {
            let wait = self.letters.until_next_try().unwrap_or_default();
            let _ = self.stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        let due = self.letters.take_due();
        listening.consumer.give_back(&due).await?;
        listening.make_room_beside(self.letters.held()).await
    }

    async fn wait_for_letters(&mut self, listening: &Listening) -> Result<(), broker::Error> {
        while self.letters.any_in_flight()
            && let Some(fate) = self.letters.next_fate().await
        {
            self.note(fate, listening).await?;
        }
        Ok(())
    }

    async fn note(&mut self, fate: crate::letters::Fate, listening: &Listening) -> Result<(), broker::Error> {
        match self.letters.note(fate) {
            Some(tag) => listening.consumer.acknowledge(tag).await,
            None => Ok(()),
        }
    }
}

/// A message that can never be applied.
struct Hopeless {
    delivery: Delivery,
    reason: String,
}

impl Hopeless {
    fn new(delivery: Delivery, trace: &Context, id: Option<i64>, reason: String) -> Self {
        trace::fail(trace, reason.clone());
        let _in_its_trace = trace.clone().attach();
        tracing::error!(event = "failed_to_sync_buy_order_read_model", id, info = reason);
        Self { delivery, reason }
    }
}
