//! What is promised of every `traceparent` and `tracestate`.

use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};

use super::{
    TRACEPARENT, TRACESTATE, add_to_headers, context_of, context_of_headers, traceparent, tracestate,
};

/// The first line of `data` is the `traceparent` and each further one a `tracestate`, of a request and of a message. What is passed on of it is
/// of the form that the specification prescribes, and is read as the same caller.
///
/// # Panics
///
/// If that is not so.
pub fn trace_context(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').take(10);
    let (parent, states) = (lines.next().unwrap_or_default(), lines.collect::<Vec<_>>());

    let mut headers = HeaderMap::new();
    let states_of_headers = states.iter().map(|state| (TRACESTATE, *state));
    for (name, value) in [(TRACEPARENT, parent)].into_iter().chain(states_of_headers) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let of_request = context_of_headers(&headers);
    check_parent(&of_request);
    let mut passed_on = HeaderMap::new();
    add_to_headers(&of_request, &mut passed_on);
    assert_eq!(caller(&context_of_headers(&passed_on)), caller(&of_request));

    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let state = text(&states.join(&b','));
    let of_message = context_of(Some(&text(parent)), Some(&state));
    check_parent(&of_message);
    let (parent, state) = (traceparent(&of_message), tracestate(&of_message));
    let again = context_of(parent.as_deref(), state.as_deref());
    assert_eq!(caller(&again), caller(&of_message));
}

fn caller(context: &Context) -> SpanContext {
    context.span().span_context().clone()
}

fn check_parent(context: &Context) {
    let Some(parent) = traceparent(context) else {
        assert_eq!(tracestate(context), None);
        return;
    };
    let lengths: Vec<usize> = parent.split('-').map(str::len).collect();
    assert_eq!(lengths, [2, 32, 16, 2], "{parent}");
    assert!(
        parent.starts_with("00-") && (parent.ends_with("-00") || parent.ends_with("-01")),
        "{parent}"
    );
    let is_of_form = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    assert!(parent.bytes().all(is_of_form), "{parent}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("trace_context", super::trace_context);
    }
}
