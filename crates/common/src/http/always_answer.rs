//! Every request gets an answer in our form, whatever its handler does, and every `5xx` is logged once.

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

/// Each wait of a handler has a limit of its own. This one bounds their sum.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The two stages of a shutdown.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    /// Cancelled when the process is asked to stop.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the process can no longer wait for requests in flight.
    pub(super) overdue: CancellationToken,
}

/// Answers `500` if a handler panics. Answers `503` if a request takes longer than 15 s, or is still in flight when the process has to end.
/// Gives errors of other origin our form. Logs each `5xx`.
pub(super) async fn always_answer(
    State(shutdown): State<Shutdown>,
    request: Request,
    next: Next,
) -> Response {
    let request_line = format!("{} {}", request.method(), request.uri().path());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer);
    let answer = match shutdown.overdue.run_until_cancelled(answer).await {
        Some(Ok(Ok(response))) => Ok(in_our_form(response)),
        Some(Ok(Err(panic))) => Err(Problem::internal(anyhow!(
            "a handler panicked: {}",
            panic_text(&*panic)
        ))),
        Some(Err(_)) => Err(Problem::unavailable(
            "the request took too long, try again",
            anyhow!("it was not answered within {} s", ANSWER_TIMEOUT.as_secs()),
        )),
        None => Err(Problem::unavailable(
            "the service is stopping, try again",
            anyhow!("it was not answered before the process had to end"),
        )),
    };
    let mut response = answer.into_response();
    if let Some(Failure { error, reference }) = response.extensions_mut().remove::<Failure>() {
        tracing::error!(event = "request_failed", request = request_line, error = format!("{error:#}"), %reference);
    }
    if shutdown.stopping.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// axum and the documentation page answer some errors in plain text, or without a body. Those get our form.
fn in_our_form(mut original: Response) -> Response {
    let status = original.status();
    let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || original.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        return original;
    }
    let detail = status.canonical_reason().unwrap_or("the request failed");
    let mut response = Problem::client(status, detail).into_response();
    if let Some(allow) = original.headers_mut().remove(ALLOW) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
