//! A batch of deliveries on its way into the read model.

use common::broker::{Connector, process_span};
use common::database::Pool;
use common::trace;
use lapin::message::Delivery;
use opentelemetry::Context;

use crate::db::{self, Work};
use crate::delivery::{ApplyOutcome, Event, Message, read, without_panic};
use crate::metrics::METRICS;

/// Deliveries by what is to be done with them.
#[derive(Default)]
pub(crate) struct Batch {
    /// To be written.
    waiting: Vec<Message>,
    /// In the read model, and their orders are still to be marked if they are voided.
    written: Vec<Written>,
    /// The tags of those that are applied.
    pub(crate) applied: Vec<u64>,
    /// Those that can never be applied, and why.
    pub(crate) rejected: Vec<(Delivery, String)>,
}

/// A message whose order or void is in the read model.
struct Written {
    message: Message,
    /// Whether this batch has put it there.
    is_new: bool,
}

/// What is left to retry.
#[derive(Default)]
struct Postponed {
    messages: usize,
    first_reason: Option<String>,
}

impl Postponed {
    fn add(&mut self, reason: String) {
        METRICS.postponed.inc();
        self.messages += 1;
        self.first_reason.get_or_insert(reason);
    }

    fn report(&self) {
        if let Some(info) = &self.first_reason {
            tracing::warn!(
                event = "model_update_failed",
                model = "buy_order_read_model",
                waiting = self.messages,
                info
            );
        }
    }
}

impl Batch {
    /// Reads deliveries of this connection's queue.
    pub(crate) fn read(deliveries: Vec<Delivery>, of: &Connector) -> Self {
        METRICS.took(deliveries.len());
        let mut batch = Self::default();
        for delivery in deliveries {
            let trace = process_span(&of.endpoint, &delivery, of.queue);
            match without_panic(|| read(&delivery)) {
                Ok(event) => batch.waiting.push(Message {
                    delivery,
                    event,
                    trace,
                }),
                Err(reason) => batch.reject(delivery, &trace, None, reason),
            }
        }
        batch
    }

    /// Tries once to apply what is not applied yet. Returns whether nothing is left to retry.
    pub(crate) async fn apply(&mut self, pool: &Pool) -> bool {
        let mut postponed = Postponed::default();
        self.write(pool, &mut postponed).await;
        self.mark(pool, &mut postponed).await;
        postponed.report();
        self.waiting.is_empty() && self.written.is_empty()
    }

    /// Writes what is waiting: orders and voids.
    async fn write(&mut self, pool: &Pool, postponed: &mut Postponed) {
        let messages = std::mem::take(&mut self.waiting);
        let (mut orders, mut voids) = (Vec::new(), Vec::new());
        for message in &messages {
            match &message.event {
                Event::Created(order) => orders.push(order),
                Event::Voided(void) => voids.push(void),
            }
        }
        let mut of_orders = db::apply(pool, Work::Orders(&orders)).await.into_iter();
        let mut of_voids = db::apply(pool, Work::Voids(&voids)).await.into_iter();
        for message in messages {
            let outcome = match message.event {
                Event::Created(_) => of_orders.next(),
                Event::Voided(_) => of_voids.next(),
            };
            match outcome {
                Some(ApplyOutcome::Applied) => self.written.push(Written {
                    message,
                    is_new: true,
                }),
                Some(ApplyOutcome::AlreadyApplied) => self.written.push(Written {
                    message,
                    is_new: false,
                }),
                Some(ApplyOutcome::Permanent(reason)) => self.reject_message(message, reason),
                Some(ApplyOutcome::Transient(reason)) => {
                    postponed.add(reason);
                    self.waiting.push(message);
                }
                None => self.waiting.push(message),
            }
        }
    }

    /// Marks the orders of what is written that are voided.
    async fn mark(&mut self, pool: &Pool, postponed: &mut Postponed) {
        let written = std::mem::take(&mut self.written);
        let ids: Vec<i64> = written
            .iter()
            .map(|written| written.message.event.order_id())
            .collect();
        let outcomes = db::apply(pool, Work::Marks(&ids)).await;
        for (written, outcome) in written.into_iter().zip(outcomes) {
            match outcome {
                ApplyOutcome::Applied | ApplyOutcome::AlreadyApplied => self.finish(written),
                ApplyOutcome::Permanent(reason) => self.reject_message(written.message, reason),
                ApplyOutcome::Transient(reason) => {
                    postponed.add(reason);
                    self.written.push(written);
                }
            }
        }
    }

    fn finish(&mut self, Written { message, is_new }: Written) {
        self.applied.push(message.delivery.delivery_tag);
        if !is_new {
            METRICS.repeated.inc();
            return;
        }
        METRICS.applied.inc();
        let _in_trace = message.trace.attach();
        match message.event {
            Event::Created(order) => {
                METRICS.observe_lag(order.created_at);
                tracing::info!(event = "buy_order_read_model_synced", id = order.id);
            }
            Event::Voided(void) => {
                tracing::info!(event = "buy_order_void_read_model_synced", id = void.id);
            }
        }
    }

    fn reject_message(&mut self, message: Message, reason: String) {
        let id = message.event.order_id();
        self.reject(message.delivery, &message.trace, Some(id), reason);
    }

    fn reject(&mut self, delivery: Delivery, trace: &Context, id: Option<i64>, reason: String) {
        trace::fail(trace, "rejected", reason.clone());
        let _in_trace = trace.clone().attach();
        tracing::error!(event = "failed_to_sync_buy_order_read_model", id, info = reason);
        self.rejected.push((delivery, reason));
    }
}
