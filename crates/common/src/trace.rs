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

use opentelemetry::trace::{
    SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub(crate) use export::Config;

/// As the dispatcher of `tracing`: set once per process, when it starts. Where it is not set, in unit tests, no span begins.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The traces of this process; flush them before it ends.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    exports: bool,
}

impl Traces {
    /// Sets up tracing for the whole process. Must be called inside the async runtime. Starts a thread only where spans are exported.
    ///
    /// # Errors
    /// When the configuration is none that spans can be exported with.
    pub(crate) fn start(service: &'static str, config: &Config) -> anyhow::Result<Self> {
        let builder = SdkTracerProvider::builder();
        let builder = match &config.export {
            Some(export) => export.install(builder, service)?,
            None => builder,
        };
        let provider = builder.build();
        // Fails only when another is set already, which then stays.
        let _ = TRACER.set(provider.tracer(service));
        Ok(Self {
            provider,
            exports: config.export.is_some(),
        })
    }

    /// Exports what is still buffered, for at most `deadline`.
    pub(crate) async fn flush(self, deadline: Duration) {
        if self.exports {
            let flush = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(deadline));
            let _ = tokio::time::timeout(deadline, flush).await;
        }
    }
}

/// Begins a span under the span of `parent`, or a new trace where that has none; the context that is returned has it as its span. It ends
/// when it is ended, or else when the last copy of the context is dropped.
#[must_use]
pub fn start(
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    parent: &Context,
    attributes: Vec<KeyValue>,
) -> Context {
    let Some(tracer) = TRACER.get() else {
        return parent.clone();
    };
    let builder = SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_attributes(attributes);
    parent.with_span(tracer.build_with_context(builder, parent))
}

/// Marks the span of a context as failed, and says why.
pub fn fail(context: &Context, why: impl Into<Cow<'static, str>>) {
    context.span().set_status(Status::error(why));
}
