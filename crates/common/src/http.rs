//! HTTP: the server with its limits, routes that every service has, error answers, readers of requests, and the client.

mod accept_encoding;
mod always_answer;
mod body;
pub mod client;
mod connection;
mod connection_limit;
mod context;
mod docs;
mod echo;
pub mod field;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub(crate) mod health;
mod measure;
mod problem;
mod refusal;
mod request_body;
mod routes;
mod server;
mod transport;

use axum::http::HeaderName;

pub use field::FieldFault;
pub use fields::{BodyFields, Fields, QueryFields};
pub use problem::{Detail, ErrorItem, FieldFaults, Location, Problem};
pub use routes::{Routes, routes};
pub use server::{CannotListen, Listeners, bind, serve};

/// The header of an accepted order that a client passes back to read what it has just written; see
/// `docs/decisions/0021-a-client-can-wait-for-its-own-order.md`. In lower case, as faults name it.
pub const ORDER_POSITION: &str = "order-position";

/// For how many milliseconds an answer may be reused, counted from when it was given. A client counts from when it asked, to be safe.
/// `Cache-Control: max-age` counts whole seconds: too coarse for a quote that is reused for two.
pub const FRESH_FOR_MS: HeaderName = HeaderName::from_static("x-fresh-for-ms");
