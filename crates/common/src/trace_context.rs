//! W3C Trace Context, level 1: reads a trace context from headers, and writes it into headers.
//!
//! The context is OpenTelemetry's. Its own parser accepts texts that the specification forbids, so parsing is done here.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

use std::str::FromStr as _;

use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

/// The name of the HTTP header, and of the message header.
pub const TRACEPARENT: &str = "traceparent";

/// The data of other tracers: the name of the HTTP header, and of the message header.
pub const TRACESTATE: &str = "tracestate";

/// The context of the caller that `traceparent` and `tracestate` name. If `traceparent` is missing or malformed, the context is empty, so
/// that a new trace begins. A malformed `tracestate` is ignored.
#[must_use]
pub fn context_of(traceparent: Option<&str>, tracestate: Option<&str>) -> Context {
    let Some((trace_id, span_id, flags)) = traceparent.and_then(parse) else {
        return Context::new();
    };
    let state = tracestate.and_then(|text| TraceState::from_str(text).ok());
    let caller = SpanContext::new(trace_id, span_id, flags, true, state.unwrap_or_default());
    Context::new().with_remote_span_context(caller)
}

/// The context of the caller of an HTTP request. It is empty if there is no `traceparent` header, a malformed one, or more than one.
/// Several `tracestate` headers are combined into one list.
#[must_use]
pub fn context_of_headers(headers: &HeaderMap) -> Context {
    let mut callers = headers.get_all(TRACEPARENT).iter();
    let traceparent = match (callers.next(), callers.next()) {
        (Some(caller), None) => caller.to_str().ok(),
        _ => None,
    };
    let lines = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let state = lines.collect::<Result<Vec<_>, _>>().ok();
    context_of(traceparent, state.map(|lines| lines.join(",")).as_deref())
}

/// The `traceparent` that names the span of a context as the caller. `None` if the context has no span.
#[must_use]
pub fn traceparent(context: &Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags() & TraceFlags::SAMPLED
        )
    })
}

/// The `tracestate` that goes with [`traceparent`]. `None` if it is empty.
#[must_use]
pub fn tracestate(context: &Context) -> Option<String> {
    let state = context.span().span_context().trace_state().header();
    (!state.is_empty()).then_some(state)
}

/// Adds the headers that name the span of a context as the caller.
pub fn add_to_headers(context: &Context, headers: &mut HeaderMap) {
    for (name, text) in [
        (TRACEPARENT, traceparent(context)),
        (TRACESTATE, tracestate(context)),
    ] {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
}

fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut parts = text.splitn(5, '-');
    let mut part = |digits: usize| {
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts
            .next()
            .filter(|part| part.len() == digits && part.bytes().all(lower_hex))
    };
    let version = part(2)?;
    let trace_id = TraceId::from_hex(part(32)?).ok()?;
    let parent_id = SpanId::from_hex(part(16)?).ok()?;
    let flags = u8::from_str_radix(part(2)?, 16).ok()?;
    // A later version may append parts, which are ignored. Version ff is forbidden.
    let surplus = parts.next().is_some();
    let forbidden = version == "ff" || (version == "00" && surplus);
    let valid = !forbidden && trace_id != TraceId::INVALID && parent_id != SpanId::INVALID;
    // Unknown flags are not passed on.
    valid.then(|| (trace_id, parent_id, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read_and_written(text: &str) -> Option<String> {
        traceparent(&context_of(Some(text), None))
    }

    #[test]
    fn the_specifications_example_is_read_and_written_back() {
        assert_eq!(read_and_written(EXAMPLE).as_deref(), Some(EXAMPLE));
        let not_sampled = EXAMPLE.replace("-01", "-00");
        assert_eq!(read_and_written(&not_sampled), Some(not_sampled));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(read_and_written(text), None, "{text:?}");
        }
        assert_eq!(traceparent(&context_of(None, None)), None);
    }

    #[test]
    fn a_later_version_and_unknown_flags_are_read_as_far_as_they_are_known() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-next";
        assert_eq!(read_and_written(later).as_deref(), Some(EXAMPLE));
        let more_flags = EXAMPLE.replace("-01", "-03");
        assert_eq!(read_and_written(&more_flags).as_deref(), Some(EXAMPLE));
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn passed_on(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut passed_on = HeaderMap::new();
        add_to_headers(&context_of_headers(&headers(lines)), &mut passed_on);
        passed_on
    }

    #[test]
    fn two_callers_are_none_and_lines_of_state_are_one_list_in_their_order_or_ignored() {
        let (once, state) = ((TRACEPARENT, EXAMPLE), (TRACESTATE, "foo=1"));
        assert_eq!(passed_on(&[once, once, state]), HeaderMap::new());
        let one_list = headers(&[once, (TRACESTATE, "foo=1,bar=2")]);
        for lines in [
            &[once, state, (TRACESTATE, "bar=2")] as &[_],
            &[once, (TRACESTATE, "foo=1,bar=2")],
            &[once, state, (TRACESTATE, ""), (TRACESTATE, ", bar=2 ,")],
        ] {
            assert_eq!(passed_on(lines), one_list, "{lines:?}");
        }
        assert_eq!(passed_on(&[once, (TRACESTATE, "nonsense")]), headers(&[once]));
        assert_eq!(
            passed_on(&[once, state, (TRACESTATE, "no list")]),
            headers(&[once])
        );
    }
}
