//! The projector: takes deliveries in batches, writes them to the read model, and acknowledges them after the commit.

use std::time::Duration;

use common::broker::{self, Connector, Listener, Session, Worker};
use common::database::Pool;
use common::retry::Backoff;
use lapin::message::Delivery;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::dead_letter_format::dead_letter;
use crate::dead_letter_sender::{DeadLetterSender, SendResult};
use crate::queue_depths;
use crate::recent_letters::RecentLetters;

/// Deliveries in one insert.
const BATCH: usize = 500;

/// The next batch arrives while this one is written.
const PREFETCH: u16 = 1000;

/// How many dead letters are held that the broker does not take. With more, nothing is consumed until the next retry.
const MAX_HELD: usize = 50_000;

/// How soon a delivery is acknowledged after its dead letter was confirmed, while no other deliveries come.
const PATIENCE_IN_FLIGHT: Duration = Duration::from_millis(20);

/// How long to wait for room for one more dead letter.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for dead letters in flight before all deliveries are requeued.
const REQUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for dead letters in flight after a stop. A broker that works confirms within milliseconds; shorter than the drain deadline.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Projects until the process is asked to stop, and finishes the batch that it has begun. What is not acknowledged goes back to the queue.
/// Outages of broker or database only delay it.
pub(crate) struct Projector {
    pool: Pool,
    connector: Connector,
    dead_letters: DeadLetterSender,
    stopping: CancellationToken,
}

impl Worker for Projector {
    async fn work(&mut self, session: Session, backoff: &mut Backoff) -> Result<(), broker::Error> {
        let listener = Listener::on(session, self.connector.queue, PREFETCH);
        let Some(listener) = self.stopping.run_until_cancelled(listener).await else {
            return Ok(());
        };
        let mut listener = listener?;
        let _watching = queue_depths::watch(listener.session.depths(), self.connector.queue);
        self.consume(&mut listener, backoff).await?;
        listener.close().await;
        Ok(())
    }
}

impl Projector {
    /// Adds to `recent` the dead letters that it sends.
    pub(crate) fn new(
        pool: Pool,
        connector: Connector,
        recent: RecentLetters,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            pool,
            dead_letters: DeadLetterSender::start(&connector, recent),
            connector,
            stopping,
        }
    }

    async fn consume(&mut self, listener: &mut Listener, backoff: &mut Backoff) -> Result<(), broker::Error> {
        self.dead_letters.begin_consumer();
        let stopping = self.stopping.clone();
        loop {
            if listener.consumer.overflowed() {
                // All deliveries are requeued, and each whose dead letter is in flight would cause a second one.
                let _ = timeout(REQUEUE_TIMEOUT, self.finish_in_flight(listener)).await;
                listener.begin_pulling().await?;
                self.dead_letters.begin_consumer();
            }
            self.handle_dead_letters(listener).await?;
            let next = listener.next_batch(BATCH, self.patience());
            let Some(deliveries) = stopping.run_until_cancelled(next).await else {
                break;
            };
            self.process_batch(deliveries?, listener, backoff).await?;
        }
        let _ = timeout(STOP_TIMEOUT, self.finish_in_flight(listener)).await;
        Ok(())
    }

    /// How long to wait for deliveries before anything else is to be done.
    fn patience(&self) -> Duration {
        if self.dead_letters.any_in_flight() {
            PATIENCE_IN_FLIGHT
        } else {
            self.dead_letters.until_retry().unwrap_or(Duration::MAX)
        }
    }

    /// Applies every delivery or sends it to the dead letters, and acknowledges what is applied. Leaves the batch unacknowledged if the process
    /// is asked to stop while the database is away.
    async fn process_batch(
        &mut self,
        deliveries: Vec<Delivery>,
        listener: &Listener,
        backoff: &mut Backoff,
    ) -> Result<(), broker::Error> {
        if deliveries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::read(deliveries, &self.connector);
        while !batch.apply(&self.pool).await {
            if !backoff.pause(&self.stopping).await {
                return Ok(());
            }
            if !listener.consumer.connected() {
                return Err(broker::Error::Closed);
            }
        }
        match batch.applied.iter().max() {
            Some(last) if batch.rejected.is_empty() && !self.dead_letters.any_unacknowledged() => {
                listener.consumer.acknowledge_through(*last).await?;
            }
            _ => {
                for tag in batch.applied {
                    listener.consumer.acknowledge(tag).await?;
                }
            }
        }
        for (delivery, reason) in batch.rejected {
            self.dead_letter(delivery, &reason, listener).await?;
        }
        backoff.reset();
        Ok(())
    }

    /// Sends a delivery to the dead letters. It is acknowledged when the broker has confirmed its dead letter: a crash in between leaves two
    /// copies, never none.
    async fn dead_letter(
        &mut self,
        delivery: Delivery,
        reason: &str,
        listener: &Listener,
    ) -> Result<(), broker::Error> {
        let tag = delivery.delivery_tag;
        while !self.dead_letters.has_room(delivery.data.len()) {
            match timeout(ROOM_TIMEOUT, self.dead_letters.next_result()).await {
                Ok(Some(result)) => self.record(result, listener).await?,
                Ok(None) | Err(_) => {
                    self.dead_letters
                        .hold(tag, "the broker has not confirmed the letters before it");
                    return Ok(());
                }
            }
        }
        let Connector { endpoint, queue, .. } = &self.connector;
        let frame_max = listener.session.frame_max();
        let letter = dead_letter(delivery, &endpoint.exchange, queue, reason, frame_max);
        self.dead_letters.send(tag, letter);
        Ok(())
    }

    /// Acknowledges the deliveries whose dead letters are confirmed, and requeues those whose dead letters are to be retried.
    async fn handle_dead_letters(&mut self, listener: &mut Listener) -> Result<(), broker::Error> {
        while let Some(result) = self.dead_letters.try_next_result() {
            self.record(result, listener).await?;
        }
        if self.dead_letters.held() >= MAX_HELD {
            let wait = tokio::time::sleep(self.dead_letters.until_retry().unwrap_or_default());
            let _ = self.stopping.run_until_cancelled(wait).await;
        }
        let due = self.dead_letters.take_due();
        listener.consumer.requeue(&due).await?;
        let held = self.dead_letters.held();
        listener.consumer.make_room(held, PREFETCH).await
    }

    async fn finish_in_flight(&mut self, listener: &Listener) -> Result<(), broker::Error> {
        while self.dead_letters.any_in_flight()
            && let Some(result) = self.dead_letters.next_result().await
        {
            self.record(result, listener).await?;
        }
        Ok(())
    }

    async fn record(&mut self, result: SendResult, listener: &Listener) -> Result<(), broker::Error> {
        match self.dead_letters.record(result) {
            Some(tag) => listener.consumer.acknowledge(tag).await,
            None => Ok(()),
        }
    }
}
