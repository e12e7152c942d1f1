//! Bounds in bytes what the broker pushes: lapin takes whatever comes off the socket, and a prefetch counts messages of any size.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lapin::message::{Delivery, DeliveryResult};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;

/// For all deliveries that are not processed yet. A thousand orders, the prefetch of the projector, take a megabyte.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Receives deliveries on lapin's own thread: what it does not pass on is freed before lapin reads the next one.
#[derive(Debug)]
pub(super) struct Intake {
    sender: mpsc::UnboundedSender<DeliveryResult>,
    bytes: AtomicUsize,
    overflowed: AtomicBool,
}

impl Intake {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<DeliveryResult>) {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let intake = Self {
            sender,
            bytes: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
        };
        (Arc::new(intake), deliveries)
    }

    /// Whether more came than the limit allows. The rest was dropped, unacknowledged.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// So many bytes were processed.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn take(&self, pushed: DeliveryResult) {
        if let Ok(Some(delivery)) = &pushed {
            let weight = weight(delivery);
            let before = self.bytes.load(Ordering::Relaxed);
            // A single delivery is taken whatever its size. After the first that is dropped all are, and the broker delivers them again
            // together. The broker cannot be told to wait: it has no limit in bytes, and finishes what it has begun to push.
            if before > 0 && before.saturating_add(weight) > MAX_BYTES {
                self.overflowed.store(true, Ordering::Relaxed);
            }
            if self.overflowed() {
                return;
            }
            self.bytes.fetch_add(weight, Ordering::Relaxed);
        }
        // Fails if the receiver is gone, because the session is being dropped.
        let _ = self.sender.send(pushed);
    }
}

/// Whether a delivery is larger than any message of ours.
pub(super) fn is_large(delivery: &Delivery) -> bool {
    const LARGE: usize = 64 * 1024;
    weight(delivery) > LARGE
}

/// The bytes that a delivery takes in memory, or a little more.
pub(super) fn weight(delivery: &Delivery) -> usize {
    let headers = delivery.properties.headers().as_ref();
    mem::size_of::<Delivery>() + delivery.data.len() + headers.map_or(0, weight_of_table)
}

fn weight_of_table(table: &FieldTable) -> usize {
    let entries = table.inner().iter();
    entries
        .map(|(name, value)| name.as_str().len() + weight_of_value(value))
        .sum()
}

fn weight_of_value(value: &AMQPValue) -> usize {
    // A header of one byte takes a map node and two values of a library.
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

    #[test]
    fn deliveries_beyond_the_limit_are_dropped() {
        let (intake, deliveries) = Intake::new();
        for _ in 0..10 {
            intake.take(delivery(MAX_BYTES / 4 - 1_000));
        }
        intake.take(delivery(1));
        assert!(intake.overflowed());
        assert_eq!(deliveries.len(), 4, "those within the limit");
        intake.take(Ok(None));
        assert_eq!(deliveries.len(), 5, "the end is told");
    }

    #[test]
    fn a_delivery_of_any_size_is_taken_alone_and_any_number_if_they_are_processed() {
        let (intake, mut deliveries) = Intake::new();
        for _ in 0..10 {
            intake.take(delivery(2 * MAX_BYTES));
            assert!(deliveries.try_recv().is_ok() && deliveries.is_empty());
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
        let mut delivery = Delivery::mock(1, "e".into(), "k".into(), false, Vec::new());
        delivery.properties = lapin::BasicProperties::default().with_headers(headers);
        let weight = weight(&delivery);
        assert!(weight > 100_000, "{weight}");
    }
}
