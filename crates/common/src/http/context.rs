//! The context in which a request is handled: its id, and its span, which is a child of the caller's span if the caller sent one.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::{FutureExt as _, SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};

use crate::client_address::ClientAddress;
use crate::request_id::RequestId;
use crate::{trace, trace_context};

/// Handles a request in its context, and sends its id in the answer.
pub(super) async fn handle_in_context(request: Request, next: Next) -> Response {
    let id = RequestId::from_headers(request.headers());
    let mut context = span(&request).with_value(id.clone());
    if let Some(address) = ClientAddress::from_headers(request.headers()) {
        context = context.with_value(address);
    }
    let mut response = next.run(request).with_context(context.clone()).await;
    id.add_to_headers(response.headers_mut());
    // The conventions say that a `4xx` is not a failure of the server's span.
    let status = response.status();
    record_status(&context, status, status.is_server_error());
    context.span().end();
    response
}

/// Names and attributes follow OpenTelemetry's semantic conventions for HTTP.
fn span(request: &Request) -> Context {
    let caller = trace_context::context_of_headers(request.headers());
    trace::start(&caller, || {
        let method = known_method(request.method());
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("url.scheme", "http"),
        ];
        let name = match request.extensions().get::<MatchedPath>() {
            Some(route) => {
                attributes.push(KeyValue::new("http.route", route.as_str().to_owned()));
                format!("{method} {}", route.as_str())
            }
            None => method.to_owned(),
        };
        SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
    })
}

/// Adds the status of an answer to the span of its request.
pub(super) fn record_status(context: &Context, status: StatusCode, is_failure: bool) {
    let span = context.span();
    let code = i64::from(status.as_u16());
    span.set_attribute(KeyValue::new("http.response.status_code", code));
    if is_failure {
        trace::fail(context, status.as_str().to_owned(), "");
    }
}

/// The name of a standard method, else `_OTHER`: clients can send any text, and the number of span names must stay limited.
pub(super) fn known_method(method: &Method) -> &'static str {
    const STANDARD: [&str; 9] = [
        "GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
    ];
    let known = STANDARD.into_iter().find(|name| *name == method.as_str());
    known.unwrap_or("_OTHER")
}
