//! What every service answers besides its own routes.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::ALLOW;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::FutureExt as _;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::health::healthcheck;
use super::problem::{Failure, Problem};

/// Adds to the routes of a service: `GET /healthcheck`; with a document also `GET /openapi.json` and `GET /docs`, whose page needs no
/// network; `404` and `405` in the form of all errors; an answer where a handler panics; and a log entry for each `5xx`.
pub fn routes(api: Router, document: Option<OpenApi>) -> Router {
    let mut router = api.route("/healthcheck", get(healthcheck));
    if let Some(document) = document {
        router = router
            // A service without this route of its own would send the browser to validator.swagger.io.
            .merge(
                SwaggerUi::new("/docs")
                    .config(Config::default().validator_url("none"))
                    .url("/openapi.json", document),
            );
    }
    router.fallback(not_found).layer(from_fn(watch))
}

async fn not_found() -> Problem {
    Problem::client(StatusCode::NOT_FOUND, "Not Found")
}

async fn watch(request: Request, next: Next) -> Response {
    let named = format!("{} {}", request.method(), request.uri().path());
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|panic| {
        Problem::internal(anyhow!("a handler panicked: {}", panic_text(&*panic))).into_response()
    });
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = method_not_allowed(&response);
    }
    if let Some(Failure { error, reference }) = response.extensions_mut().remove::<Failure>() {
        tracing::error!(event = "request_failed", request = named, error = format!("{error:#}"), %reference);
    }
    response
}

fn method_not_allowed(original: &Response) -> Response {
    let mut response = (
        StatusCode::METHOD_NOT_ALLOWED,
        Json(serde_json::json!({ "detail": "Method Not Allowed" })),
    )
        .into_response();
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
