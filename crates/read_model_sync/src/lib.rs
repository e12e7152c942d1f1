//! Projects the write model into the read model: consumes the events of new and of voided orders, inserts each order and each void once, and
//! marks the orders that are voided. Events may be repeated and in any order.
//!
//! In reading order: [`config`], [`app`], `projector` (consumes and acknowledges), `batch` (applies deliveries), [`delivery`] (what a message
//! says), [`db`] (every SQL statement), `dead_letter_format` and `dead_letter_sender` (what can never be applied), `metrics` and
//! `queue_depths`. For an operator: `recent_letters`, [`dead_letters`], [`verify`].

pub mod arguments;
pub mod config;

pub mod app;

mod projector;

mod batch;
pub mod delivery;

pub mod db;

mod dead_letter_format;
mod dead_letter_sender;
mod recent_letters;

pub mod dead_letters;
mod metrics;
mod queue_depths;
pub mod verify;

pub use config::Config;
