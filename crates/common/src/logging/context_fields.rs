//! Which request and which trace an event belongs to.

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Event;

use crate::http::request_id::RequestId;

/// Hands over the fields that the current context adds to an event, to be set before those of the event itself, which they must not hide.
pub(super) fn add_context(event: &Event<'_>, mut add: impl FnMut(&'static str, String)) {
    // OpenTelemetry reports faults of a context while that cannot be looked at.
    if event.metadata().target().starts_with("opentelemetry") {
        return;
    }
    Context::map_current(|context| {
        if let Some(id) = context.get::<RequestId>() {
            add("request_id", id.as_str().to_owned());
        }
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() {
            add("trace_id", span.trace_id().to_string());
        }
    });
}
