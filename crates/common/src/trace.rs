//! Spans: what was done, each the child of what caused it, in this process or another.
//!
//! The one source of truth is OpenTelemetry's [`Context`]: it says which trace and span a piece of work belongs to, and its request id.
//! Tasks carry it (`with_context`), events are logged with its ids, and messages and requests pass it on ([`crate::trace_context`]).
//! Ids are always made and carried. Spans are recorded only if the service exports them.
//!
//! These are not the spans of the `tracing` crate: `RUST_LOG` can filter those out, and the ids that are sent to other services must not
//! depend on what is logged.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanBuilder, SpanContext, Status, TraceContextExt as _, TraceFlags, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracer};

/// Set once, at the start of a process that exports spans. Global, like the dispatcher of `tracing`.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Records spans.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) tracer: SdkTracer,
    /// Whether only traces are recorded whose caller wants that. Then no other span is even built.
    pub(crate) sampled_by_caller: bool,
}

impl Recorder {
    fn records(&self, parent: &Context) -> bool {
        !self.sampled_by_caller || parent.span().span_context().is_sampled()
    }
}

/// Records the spans of this process from now on. If another recorder is set already, that one stays.
pub(crate) fn record_with(recorder: Recorder) {
    let _ = RECORDER.set(recorder);
}

/// Starts a span under the span of `parent`, or in a new trace if `parent` has none. The returned context holds the new span, which ends
/// when it is ended, or when the last copy of the context is dropped. `describe` is called only if spans are recorded.
#[must_use]
pub fn start(parent: &Context, describe: impl FnOnce() -> SpanBuilder) -> Context {
    match RECORDER.get() {
        Some(recorder) if recorder.records(parent) => {
            parent.with_span(recorder.tracer.build_with_context(describe(), parent))
        }
        Some(_) => parent.with_remote_span_context(not_recorded(parent, TraceFlags::default())),
        None => parent.with_remote_span_context(not_recorded(parent, TraceFlags::SAMPLED)),
    }
}

/// A span that has ids to pass on, and is not recorded. The sampling flag of the caller is passed on. Without a caller it is that of `new_trace`:
/// in a process that exports nothing it is set, so that the services that are called next may record the trace.
fn not_recorded(parent: &Context, new_trace: TraceFlags) -> SpanContext {
    let ids = RandomIdGenerator::default();
    let span = parent.span();
    let caller = span.span_context();
    let (trace_id, flags) = if caller.is_valid() {
        (caller.trace_id(), caller.trace_flags())
    } else {
        (ids.new_trace_id(), new_trace)
    };
    let state = caller.trace_state().clone();
    SpanContext::new(trace_id, ids.new_span_id(), flags, false, state)
}

/// Marks the span of a context as failed. `error_type` is the kind of the failure, one of few values; `why` says it in words.
pub fn fail(context: &Context, error_type: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) {
    let span = context.span();
    span.set_attribute(KeyValue::new("error.type", error_type.into()));
    span.set_status(Status::error(why));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace_context::{context_of, traceparent};

    fn begin(parent: &Context) -> String {
        let context = start(parent, || SpanBuilder::from_name("never described"));
        traceparent(&context).unwrap_or_default()
    }

    #[test]
    fn a_span_stays_in_the_trace_of_its_parent_as_it_is_sampled() {
        for flags in ["00", "01"] {
            let caller = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let child = begin(&context_of(Some(&caller), None));
            assert_ne!(child, caller);
            assert_eq!((&child[..36], &child[52..]), (&caller[..36], &caller[52..]));
        }
    }

    #[test]
    fn a_trace_that_its_caller_decides_on_is_recorded_if_the_caller_says_so() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let recorder = Recorder {
            tracer: opentelemetry::trace::TracerProvider::tracer(&provider, "test"),
            sampled_by_caller: true,
        };
        let recorded = |flags| {
            let caller = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            recorder.records(&context_of(Some(&caller), None))
        };
        assert_eq!([recorded("00"), recorded("01")], [false, true]);
        assert!(!recorder.records(&Context::new()));
    }

    #[test]
    fn without_a_parent_each_span_begins_a_trace_that_others_may_record() {
        let traces = [begin(&Context::new()), begin(&Context::new())];
        assert_ne!(traces[0][..36], traces[1][..36]);
        assert!(traces.iter().all(|trace| trace.ends_with("-01")), "{traces:?}");
    }
}
