//! Projects the write model into the read model: consumes the events of new orders and inserts each order once, however often and in
//! whatever order its event is delivered.
//!
//! In reading order: [`config`], [`app`], [`projector`] (the supervisor and its batches), [`delivery`] (what a message says, and what
//! becomes of it), [`db`] (every SQL statement), `letters` (dead letters on their way), [`metrics`]. For an operator: [`dead_letters`], [`verify`].

pub mod arguments;
pub mod config;

pub mod app;

pub mod projector;

pub mod delivery;

pub mod db;

mod letters;

pub mod dead_letters;
pub mod metrics;
pub mod verify;

pub use config::Config;
