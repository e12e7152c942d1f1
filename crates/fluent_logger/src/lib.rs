#![doc = include_str!("../README.md")]

mod ack;
mod backoff;
mod buffer;
mod config;
mod connection;
mod encode;
mod record;
mod sender;
mod worker;

#[cfg(any(test, feature = "fuzzing"))]
pub use ack::fuzz;
pub use config::{Config, Status};
pub use record::Record;
pub use sender::Sender;
pub use worker::{Flushed, Worker, start};
