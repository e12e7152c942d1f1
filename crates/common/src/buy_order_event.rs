//! The messages on the queue: an order was created, or voided.
//!
//! The reader accepts more than the writer sends: the original system, in Python, may send decimals as JSON numbers. They are read by their
//! digits, never through a float. Unknown fields are ignored. Values that no order can have are refused. No value may make the reader panic,
//! because the message would be redelivered for ever.

mod created;
mod fields;
mod voided;

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;

#[cfg(test)]
mod properties;

pub use created::BuyOrderCreated;
pub use fields::{MAX_REASON_CHARACTERS, is_reason};
pub use voided::BuyOrderVoided;

#[cfg(test)]
pub(crate) use created::tests::GOLDEN as GOLDEN_CREATED;
#[cfg(test)]
pub(crate) use voided::tests::GOLDEN as GOLDEN_VOIDED;
