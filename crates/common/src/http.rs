//! How a service answers over HTTP: listener, common routes, error bodies, and readers of requests that name every fault at once.

mod accept_encoding;
mod arriving;
mod body;
pub mod client;
mod connection;
mod context;
mod docs;
pub mod field;
pub(crate) mod health;
mod measure;
pub mod openapi;
mod problem;
mod query;
mod readiness;
mod refusal;
pub(crate) mod request_id;
mod routes;
mod seats;
mod server;
mod watch;

use axum::http::HeaderName;

pub use body::BodyFields;
pub use field::FieldFault;
pub use problem::{ErrorItem, Location, Problem};
pub use query::QueryFields;
pub use readiness::Readiness;
pub use routes::routes;
pub use server::{CannotListen, bind, serve};

/// For how many milliseconds an answer may be reused, from the moment it was asked for. `Cache-Control: max-age` counts whole seconds, of
/// which a quote has two.
pub const FRESH_FOR_MS: HeaderName = HeaderName::from_static("x-fresh-for-ms");
