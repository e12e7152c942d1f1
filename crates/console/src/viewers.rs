//! `GET /events`: what browsers see, each second.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use common::http::Problem;
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::watch::Latest;

/// Each is a connection that stays, and is written to each second.
const MAX_VIEWERS: usize = 32;

/// Those who watch; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Viewers {
    latest: Latest,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

/// One who watches.
struct Viewer {
    latest: Latest,
    /// What is sent before the next state.
    first: Option<String>,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Viewers {
    pub(crate) fn new(latest: Latest, stopping: CancellationToken) -> Self {
        Self {
            latest,
            places: Arc::new(Semaphore::new(MAX_VIEWERS)),
            stopping,
        }
    }

    /// The stream of one more: `history`, then `state` at once and each time that there is a new one. It ends when the process is asked to
    /// stop.
    ///
    /// # Errors
    /// Too many watch already.
    pub(crate) fn stream(&self) -> Result<impl IntoResponse + use<>, Problem> {
        // No `5xx` that is logged: a browser asks again.
        let too_many = |_| {
            let detail = format!("{MAX_VIEWERS} pages are open already: close one and load this one again");
            Problem::client(StatusCode::SERVICE_UNAVAILABLE, detail)
        };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(too_many)?;
        let mut latest = self.latest.clone();
        let published = Arc::clone(&latest.borrow_and_update());
        let history = json!({ "points": published.history });
        let viewer = Viewer {
            latest,
            first: published.state.clone(),
            stopping: self.stopping.clone(),
            _place: place,
        };
        let begin = Event::default().event("history").data(history.to_string());
        let states = stream::unfold(viewer, async |mut viewer| {
            let state = viewer.next_state().await?;
            Some((Ok(Event::default().event("state").data(state)), viewer))
        });
        let begin = stream::iter([Ok::<_, Infallible>(begin)]);
        Ok(Sse::new(futures_util::StreamExt::chain(begin, states)))
    }
}

impl Viewer {
    /// `None`: the process is asked to stop.
    async fn next_state(&mut self) -> Option<String> {
        if self.stopping.is_cancelled() {
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let changed = self.stopping.run_until_cancelled(self.latest.changed()).await?;
        changed.ok()?;
        self.latest.borrow_and_update().state.clone()
    }
}
