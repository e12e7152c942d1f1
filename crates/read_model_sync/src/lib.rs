//! Projects the write model into the read model: consumes the events of new orders and inserts each order once, however often and in
//! whatever order its event is delivered.
//!
//! In reading order: [`config`], [`app`], [`projector`] (the supervisor and its batches), [`delivery`] (what a message says, and what
//! becomes of it), [`db`] (every SQL statement), [`metrics`].

pub mod config;

pub mod app;

pub mod projector;

pub mod delivery;

pub mod db;

pub mod metrics;

pub use config::Config;
