//! Projects the write model into the read model: consumes the events of new orders and inserts each order once. Events may be repeated and
//! in any order.
//!
//! In reading order: [`config`], [`app`], `projector` (consumes and acknowledges), `batch` (applies deliveries), [`delivery`] (what a message
//! says), [`db`] (every SQL statement), `dead_letter_format` and `dead_letter_sender` (what can never be applied), `metrics`. For an
//! operator: [`dead_letters`], [`verify`].

pub mod arguments;
pub mod config;

pub mod app;

mod projector;

mod batch;
pub mod delivery;

pub mod db;

mod dead_letter_format;
mod dead_letter_sender;

pub mod dead_letters;
mod metrics;
pub mod verify;

pub use config::Config;
