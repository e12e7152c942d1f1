//! Who sends a request. `AUTH_MODE=none`: always client 1, as in the original. `AUTH_MODE=jwt`: the client that a bearer token names, a JWT
//! (RFC 7519) that the issuer has signed.
//!
//! In reading order: [`Auth`] (the configuration), [`Callers`] and [`Client`] (what handlers use), `refusal` (why a request is refused),
//! `token` (what a token claims), `keys` (the issuer's keys, which verify tokens), `issuer` (keeps the keys up to date), `ring_provider`.

mod callers;
mod config;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;
mod issuer;
mod keys;
mod refusal;
mod ring_provider;
mod token;

pub use callers::{Callers, Client};
pub use config::Auth;
