//! Traces: spans of what is done, each the child of what caused it, in this process or another.
//!
//! The one source of truth is OpenTelemetry's [`Context`]: it says which trace and span a piece of work belongs to, and its request id.
//! Tasks carry it (`with_context`), events are logged with its ids, messages and requests pass it on ([`crate::trace_context`]). Ids are
//! made and carried always; spans leave the process only where an endpoint to export them to is configured.
//!
//! Not `tracing`'s spans: they vanish where `RUST_LOG` filters them, and what is carried to other services must not depend on what is
//! logged.

mod export;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, Status, TraceContextExt as _, TraceFlags, Tracer as _, TracerProvider as _,
};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracer, SdkTracerProvider};

pub(crate) use export::Config;

/// As the dispatcher of `tracing`: set once per process, when it starts, where spans are exported.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The traces of this process; flush them before it ends.
#[derive(Debug)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sets up tracing for the whole process. Must be called inside the async runtime. Does nothing where no spans are exported.
    ///
    /// # Errors
    /// When the configuration is none that spans can be exported with.
    pub(crate) fn start(service: &'static str, config: &Config) -> anyhow::Result<Self> {
        let Some(export) = &config.export else {
            return Ok(Self(None));
        };
        let provider = export.provider(service)?;
        // Fails only when another is set already, which then stays.
        let _ = TRACER.set(provider.tracer(service));
        Ok(Self(Some(provider)))
    }

    /// Exports what is still buffered, for at most `deadline`.
    pub(crate) async fn flush(self, deadline: Duration) {
        if let Some(provider) = self.0 {
            let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
            let _ = tokio::time::timeout(deadline, flush).await;
        }
    }
}

/// Begins a span under the span of `parent`, or a new trace where that has none; the context that is returned has it as its span. It ends
/// when it is ended, or else when the last copy of the context is dropped. It is described only where spans are exported.
#[must_use]
pub fn start(parent: &Context, describe: impl FnOnce() -> SpanBuilder) -> Context {
    match TRACER.get() {
        Some(tracer) => parent.with_span(tracer.build_with_context(describe(), parent)),
        None => parent.with_remote_span_context(not_recorded(parent)),
    }
}

/// A span that has its ids, to be carried on, and nothing else. The caller's word on sampling is passed on; where there is no caller, those
/// that come next may record the trace.
fn not_recorded(parent: &Context) -> SpanContext {
    let ids = RandomIdGenerator::default();
    let span = parent.span();
    let caller = span.span_context();
    let (trace_id, flags) = if caller.is_valid() {
        (caller.trace_id(), caller.trace_flags())
    } else {
        (ids.new_trace_id(), TraceFlags::SAMPLED)
    };
    SpanContext::new(
        trace_id,
        ids.new_span_id(),
        flags,
        false,
        caller.trace_state().clone(),
    )
}

/// Marks the span of a context as failed, and says why.
pub fn fail(context: &Context, why: impl Into<Cow<'static, str>>) {
    context.span().set_status(Status::error(why));
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
    fn without_a_parent_each_span_begins_a_trace_that_others_may_record() {
        let traces = [begin(&Context::new()), begin(&Context::new())];
        assert_ne!(traces[0][..36], traces[1][..36]);
        assert!(traces.iter().all(|trace| trace.ends_with("-01")), "{traces:?}");
    }
}
