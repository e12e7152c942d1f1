//! Serves the public keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::{SigningKey, jwks};
use crate::background_server::BackgroundServer;
use crate::process::locked;

/// A server of a JWKS on this machine, which can be away.
#[derive(Debug)]
pub struct KeysServer {
    shared: Arc<Shared>,
    server: BackgroundServer,
}

#[derive(Debug)]
struct Shared {
    /// `None` while it is away.
    jwks: Mutex<Option<String>>,
    requests: AtomicUsize,
}

impl KeysServer {
    /// Serves these keys.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            jwks: Mutex::new(Some(jwks(keys))),
            requests: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/jwks.json", get(show))
            .with_state(Arc::clone(&shared));
        Ok(Self {
            shared,
            server: BackgroundServer::start(router)?,
        })
    }

    /// The URL of the keys.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/jwks.json", self.server.port())
    }

    /// Serves these keys from now on.
    pub fn publish<'a>(&self, keys: impl IntoIterator<Item = &'a SigningKey>) {
        *locked(&self.shared.jwks) = Some(jwks(keys));
    }

    /// Answers `503` from now on.
    pub fn go_away(&self) {
        *locked(&self.shared.jwks) = None;
    }

    /// The number of requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

async fn show(State(shared): State<Arc<Shared>>) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    match locked(&shared.jwks).clone() {
        Some(jwks) => ([(CONTENT_TYPE, "application/json")], jwks).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
