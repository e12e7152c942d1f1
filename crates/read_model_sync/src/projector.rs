//! The projector: takes deliveries in batches, writes them to the read model, and acknowledges after the commit.

use common::broker::{self, Backoff, Listening, Outgoing, Verdict};
use common::endpoints;
use lapin::message::Delivery;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::delivery::{self, Message, Outcome};

/// Deliveries in one insert.
const BATCH: usize = 500;

/// The next batch arrives while this one is written.
const PREFETCH: u16 = 1000;

/// Projects until it is told to stop; outages of broker or database only delay it.
#[derive(Debug)]
pub struct Projector {
    pool: PgPool,
    queue: endpoints::Queue,
    backoff: Backoff,
    stopping: CancellationToken,
}

impl Projector {
    /// A projector into the database of `pool`.
    #[must_use]
    pub fn new(pool: PgPool, queue: endpoints::Queue, stopping: CancellationToken) -> Self {
        let backoff = Backoff::starting_at(queue.connect_retry);
        Self {
            pool,
            queue,
            backoff,
            stopping,
        }
    }

    /// Connects to the queue, however long it takes; nothing when the process was asked to stop.
    pub async fn listen(&mut self) -> Option<Listening> {
        broker::listen(
            &self.queue,
            "read_model_sync",
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
                    listening.session.close().await;
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
        while let Some(batch) = stopping
            .run_until_cancelled(listening.consumer.next_batch(BATCH))
            .await
        {
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
        let mut waiting: Vec<Message<'_>> = Vec::with_capacity(batch.len());
        for delivery in &batch {
            match Message::read(delivery) {
                Ok(message) => waiting.push(message),
                Err(reason) => self.dead_letter(delivery, None, &reason, listening).await?,
            }
        }
        while !waiting.is_empty() {
            waiting = self.project(waiting, listening).await?;
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
        listening.consumer.acknowledge_through(&batch[last]).await?;
        self.backoff.reset();
        Ok(())
    }

    /// Tries once to write these messages; returns those that have to be tried again.
    async fn project<'a>(
        &self,
        messages: Vec<Message<'a>>,
        listening: &mut Listening,
    ) -> Result<Vec<Message<'a>>, broker::Error> {
        let outcomes = db::apply(&self.pool, &messages).await;
        let mut again = Vec::new();
        let mut why = None;
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Applied => message.report_applied(),
                Outcome::AlreadyApplied => {}
                Outcome::Permanent(reason) => {
                    self.dead_letter(message.delivery, Some(message.order.id), &reason, listening)
                        .await?;
                }
                Outcome::Transient(reason) => {
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
        Ok(again)
    }

    /// Copies a message to the dead letters. Its delivery is acknowledged with its batch, so a crash in between leaves two copies, never none.
    async fn dead_letter(
        &self,
        delivery: &Delivery,
        id: Option<i64>,
        reason: &str,
        listening: &mut Listening,
    ) -> Result<(), broker::Error> {
        tracing::error!(event = "failed_to_sync_buy_order_read_model", id, info = reason);
        let letter: Outgoing = delivery::dead_letter(delivery, &self.queue.exchange, reason);
        let verdicts = listening
            .publisher
            .publish_all(std::slice::from_ref(&letter))
            .await?;
        match verdicts.into_iter().next() {
            Some(Verdict::Confirmed) => Ok(()),
            Some(Verdict::NotConfirmed(reason)) => Err(broker::Error::NotConfirmed { count: 1, reason }),
            None => Err(broker::Error::Closed),
        }
    }
}
