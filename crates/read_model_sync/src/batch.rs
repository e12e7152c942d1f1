//! A batch of deliveries on its way into the read model.

use common::broker::process_span;
use common::database::Pool;
use common::trace;
use lapin::message::Delivery;
use opentelemetry::Context;

use crate::db;
use crate::delivery::{ApplyOutcome, Message, read, without_panic};
use crate::metrics::METRICS;

/// Deliveries by what is to be done with them.
#[derive(Default)]
pub(crate) struct Batch {
    /// To be applied.
    waiting: Vec<Message>,
    /// The tags of those whose orders are in the read model.
    pub(crate) applied: Vec<u64>,
    /// Those that can never be applied, and why.
    pub(crate) rejected: Vec<(Delivery, String)>,
}

impl Batch {
    /// Reads deliveries of this queue.
    pub(crate) fn read(deliveries: Vec<Delivery>, queue: &str) -> Self {
        METRICS.took(deliveries.len());
        let mut batch = Self::default();
        for delivery in deliveries {
            let trace = process_span(&delivery, queue);
            match without_panic(|| read(&delivery)) {
                Ok(order) => batch.waiting.push(Message {
                    delivery,
                    order,
                    trace,
                }),
                Err(reason) => batch.reject(delivery, &trace, None, reason),
            }
        }
        batch
    }

    /// Tries once to apply what is waiting. Returns whether nothing is left to retry.
    pub(crate) async fn apply(&mut self, pool: &Pool) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        let messages = std::mem::take(&mut self.waiting);
        let outcomes = db::apply(pool, &messages).await;
        let mut first_reason = None;
        for (message, outcome) in messages.into_iter().zip(outcomes) {
            let tag = message.delivery.delivery_tag;
            match outcome {
                ApplyOutcome::Applied => {
                    METRICS.applied(message.order.created_at);
                    let _in_trace = message.trace.attach();
                    tracing::info!(event = "buy_order_read_model_synced", id = message.order.id);
                    self.applied.push(tag);
                }
                ApplyOutcome::AlreadyApplied => {
                    METRICS.repeated.inc();
                    self.applied.push(tag);
                }
                ApplyOutcome::Permanent(reason) => {
                    self.reject(message.delivery, &message.trace, Some(message.order.id), reason);
                }
                ApplyOutcome::Transient(reason) => {
                    METRICS.postponed.inc();
                    first_reason.get_or_insert(reason);
                    self.waiting.push(message);
                }
            }
        }
        if let Some(info) = first_reason {
            let waiting = self.waiting.len();
            tracing::warn!(
                event = "model_update_failed",
                model = "buy_order_read_model",
                waiting,
                info
            );
        }
        self.waiting.is_empty()
    }

    fn reject(&mut self, delivery: Delivery, trace: &Context, id: Option<i64>, reason: String) {
        trace::fail(trace, reason.clone());
        let _in_trace = trace.clone().attach();
        tracing::error!(event = "failed_to_sync_buy_order_read_model", id, info = reason);
        self.rejected.push((delivery, reason));
    }
}
