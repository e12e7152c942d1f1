//! What holds for every request, whatever its handler does: it is answered, in JSON, and a failure of ours is logged.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::anyhow;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::problem::{Failure, Problem};

/// Each wait of a handler has a limit of its own; this one is for their sum, because a client does not wait for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How far a process is on the way to its end.
#[derive(Debug, Clone)]
pub(super) struct Stages {
    /// Cancelled when it was asked to stop.
    pub(super) stopping: CancellationToken,
    /// Cancelled when it can wait no longer for what is in hand.
    pub(super) overdue: CancellationToken,
}

/// Answers `500` where a handler panics, and `503` for what takes longer than 15 s or is still in hand when the process has to end; puts errors that others made
/// into the form of ours; and logs each `5xx` once.
pub(super) async fn watch(State(stages): State<Stages>, request: Request, next: Next) -> Response {
    let named = format!("{} {}", request.method(), request.uri().path());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answer = tokio::time::timeout(ANSWER_LIMIT, answer);
    let mut response = match stages.overdue.run_until_cancelled(answer).await {
        Some(Ok(Ok(response))) => response,
        Some(Err(_)) => Problem::unavailable(
            "the request took too long, try again",
            anyhow!("it was not answered within {} s", ANSWER_LIMIT.as_secs()),
        )
        .into_response(),
        Some(Ok(Err(panic))) => {
            Problem::internal(anyhow!("a handler panicked: {}", panic_text(&*panic))).into_response()
        }
        None => Problem::unavailable(
            "the service is stopping, try again",
            anyhow!("it was not answered before the process had to end"),
        )
        .into_response(),
    };
    if is_error_in_another_form(&response) {
        response = in_our_form(&response);
    }
    if let Some(Failure { error, reference }) = response.extensions_mut().remove::<Failure>() {
        tracing::error!(event = "request_failed", request = named, error = format!("{error:#}"), %reference);
    }
    if stages.stopping.is_cancelled() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// axum and the documentation page answer some errors in plain text, or with nothing.
fn is_error_in_another_form(response: &Response) -> bool {
    let status = response.status();
    let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    (status.is_client_error() || status.is_server_error())
        && !response.headers().get(CONTENT_TYPE).is_some_and(is_json)
}

fn in_our_form(original: &Response) -> Response {
    let status = original.status();
    let detail = status.canonical_reason().unwrap_or("the request failed");
    let mut response = Problem::client(status, detail).into_response();
    if let Some(allow) = original.headers().get(ALLOW) {
        response.headers_mut().insert(ALLOW, allow.clone());
    }
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
