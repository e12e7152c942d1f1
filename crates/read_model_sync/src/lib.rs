//! Projects the write model into the read model: consumes the events of new orders and inserts each order once. Events may be repeated and
//! in any order.
//!
//! In reading order: [`config`], [`app`], [`projector`] (the supervisor and its batches), [`delivery`] (the message and its outcome), [`db`]
//! (every SQL statement), `letters` (dead letters in flight), [`metrics`]. Admin commands: [`dead_letters`], [`verify`].

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
