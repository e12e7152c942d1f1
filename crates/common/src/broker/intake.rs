//! What the broker pushes, counted in bytes: lapin takes whatever comes off the socket, and a prefetch counts messages of any size.

use std::future::ready;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lapin::message::{Delivery, DeliveryResult};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ConsumerDelegate};
use tokio::sync::mpsc;

/// Deliveries that were not dealt with yet may hold so much together. A thousand orders, the prefetch of the projector, hold a megabyte.
pub(super) const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Takes deliveries off lapin's hands, on its own thread: what it does not pass on is freed before the next one is read.
#[derive(Debug)]
pub(super) struct Intake {
    to: mpsc::UnboundedSender<DeliveryResult>,
    bytes: AtomicUsize,
    overflowed: AtomicBool,
}

impl Intake {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<DeliveryResult>) {
        let (to, deliveries) = mpsc::unbounded_channel();
        let intake = Self {
            to,
            bytes: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
        };
        (Arc::new(intake), deliveries)
    }

    /// Whether more came than may be in hand: what there was no room for was forgotten.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// So much was dealt with.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn take(&self, pushed: DeliveryResult) {
        if let Ok(Some(delivery)) = &pushed {
            let weight = weight(delivery);
            let before = self.bytes.load(Ordering::Relaxed);
            // One alone is taken whatever its size. From the first that is not, none is: they come again together. The broker cannot be told
            // to wait: it knows no limit by bytes, and what it has begun to push it pushes to the end.
            if before > 0 && before.saturating_add(weight) > MOST_BYTES {
                self.overflowed.store(true, Ordering::Relaxed);
            }
            if self.overflowed() {
                return;
            }
            self.bytes.fetch_add(weight, Ordering::Relaxed);
        }
        // Nobody receives any more: the session is being dropped.
        let _ = self.to.send(pushed);
    }
}

/// For lapin.
pub(super) struct Delegate(pub(super) Arc<Intake>);

impl ConsumerDelegate for Delegate {
    fn on_new_delivery(&self, pushed: DeliveryResult) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.take(pushed);
        Box::pin(ready(()))
    }
}

/// Whether it is larger than any message of ours.
pub(super) fn is_large(delivery: &Delivery) -> bool {
    const LARGE: usize = 64 * 1024;
    weight(delivery) > LARGE
}

/// What a delivery holds in memory, or a little more.
pub(super) fn weight(delivery: &Delivery) -> usize {
    mem::size_of::<Delivery>() + delivery.data.len() + weight_of_headers(&delivery.properties)
}

fn weight_of_headers(properties: &BasicProperties) -> usize {
    properties.headers().as_ref().map_or(0, weight_of_table)
}

fn weight_of_table(table: &FieldTable) -> usize {
    let entries = table.inner().iter();
    entries
        .map(|(name, value)| name.as_str().len() + weight_of_value(value))
        .sum()
}

fn weight_of_value(value: &AMQPValue) -> usize {
    // A header of one byte is a node of a map and two values of a library.
    const ENTRY: usize = 128;
    ENTRY
        + match value {
            AMQPValue::LongString(text) => text.as_bytes().len(),
            AMQPValue::ShortString(text) => text.as_str().len(),
            AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
            AMQPValue::FieldTable(table) => weight_of_table(table),
            AMQPValue::FieldArray(values) => values.as_slice().iter().map(weight_of_value).sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(bytes: usize) -> DeliveryResult {
        let body = vec![b'x'; bytes];
        Ok(Some(Delivery::mock(1, "e".into(), "k".into(), false, body)))
    }

    fn received(deliveries: &mut mpsc::UnboundedReceiver<DeliveryResult>) -> usize {
        std::iter::from_fn(|| deliveries.try_recv().ok()).count()
    }

    #[test]
    fn what_is_in_hand_is_bounded_and_the_rest_is_forgotten() {
        let (intake, mut deliveries) = Intake::new();
        for _ in 0..10 {
            intake.take(delivery(MOST_BYTES / 4 - 1_000));
        }
        intake.take(delivery(1));
        assert!(intake.overflowed());
        assert_eq!(received(&mut deliveries), 4, "those within the bound");
        intake.take(Ok(None));
        assert_eq!(received(&mut deliveries), 1, "the end is told");
    }

    #[test]
    fn one_of_any_size_and_any_number_that_is_dealt_with_are_taken() {
        let (intake, mut deliveries) = Intake::new();
        for _ in 0..10 {
            intake.take(delivery(2 * MOST_BYTES));
            assert_eq!(received(&mut deliveries), 1);
            intake.release(intake.bytes.load(Ordering::Relaxed));
        }
        assert!(!intake.overflowed());
    }

    #[test]
    fn headers_weigh_too() {
        let mut inner = FieldTable::default();
        inner.insert("b".into(), AMQPValue::LongString("x".repeat(1000).into()));
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::FieldTable(inner));
        let array: Vec<AMQPValue> = (0..1000).map(|_| AMQPValue::Boolean(true)).collect();
        headers.insert("c".into(), AMQPValue::FieldArray(array.into()));
        let weight = weight_of_headers(&BasicProperties::default().with_headers(headers));
        assert!(weight > 100_000, "{weight}");
    }
}
