//! Exports spans: OTLP over HTTP, configured by the standard `OTEL_…` variables. If they name no endpoint, the console of the cluster gets the
//! spans of those traces that it begins, so that load costs nothing.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::endpoints::Peer;
use crate::env::Env;
use crate::http::client;
use crate::trace::{self, Recorder};

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A person waits for the spans of an order at the console.
const DELAY_TO_CONSOLE: Duration = Duration::from_millis(200);

/// The console answers within milliseconds, and may be away.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Lost spans are reported at most this often: a collector that is down usually stays down for a while.
const LOSS_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What the `OTEL_…` variables say about the export of spans. The SDK reads most of them itself. This decides whether spans are exported at
/// all, and refuses values that the SDK would silently replace by others.
#[derive(Debug)]
pub(super) struct Config {
    service_name: String,
    timeout: Duration,
    /// `None`: the endpoint that the variables name, which the SDK reads.
    console: Option<Console>,
}

/// The console of the cluster.
#[derive(Debug)]
struct Console {
    url: String,
    extra_ca: Option<PathBuf>,
}

impl Console {
    /// Reads `CONSOLE_HOST`, `CONSOLE_PORT` and `EXTRA_CA_FILE`. The console speaks TLS if this service does. `None`: there is none.
    fn from_env(env: &mut Env) -> Option<Self> {
        let is_complete = ["CONSOLE_HOST", "CONSOLE_PORT"].map(|name| env.optional(name).is_some());
        if is_complete != [true, true] {
            return None;
        }
        let speaks_tls = env.optional("SERVICE_TLS_CERT_FILE").is_some();
        let peer = Peer {
            protocol: if speaks_tls { "https" } else { "http" },
            host: env.host("CONSOLE_HOST"),
            port: env.port("CONSOLE_PORT"),
            extra_ca: env.optional("EXTRA_CA_FILE").map(PathBuf::from),
        };
        Some(Self {
            url: peer.url("/v1/traces"),
            extra_ca: peer.extra_ca.filter(|_| speaks_tls),
        })
    }
}

impl Config {
    /// Reads `OTEL_…` and `CONSOLE_…`. `None`: no spans are exported.
    pub(super) fn from_env(env: &mut Env, service: &str) -> Option<Self> {
        const DEFAULT_TIMEOUT_MS: u64 = 10_000;
        env.one_of("OTEL_TRACES_SAMPLER", &SAMPLERS);
        let named = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ]
        .into_iter()
        .find_map(|name| Some((name, env.optional(name)?)));
        let console = match named {
            Some(_) => None,
            None => Some(Console::from_env(env)?),
        };
        if env.optional("OTEL_SDK_DISABLED").as_deref() == Some("true")
            || env.optional("OTEL_TRACES_EXPORTER").as_deref() == Some("none")
        {
            return None;
        }
        if let Some((name, url)) = &named {
            let is_http = |url: reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
            if !reqwest::Url::parse(url).is_ok_and(is_http) {
                env.malformed(name, url, "is no http or https URL");
            }
        }
        for name in [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ] {
            env.one_of(name, &["http/protobuf"]);
        }
        let all_signals = env.parse_or("OTEL_EXPORTER_OTLP_TIMEOUT", DEFAULT_TIMEOUT_MS);
        let timeout_ms = env.parse_or("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", all_signals);
        Some(Self {
            service_name: env.string_or("OTEL_SERVICE_NAME", service),
            timeout: match console {
                Some(_) => CONSOLE_TIMEOUT,
                None => Duration::from_millis(timeout_ms),
            },
            console,
        })
    }

    /// Starts to record the spans of this process, and to export them in batches, from a thread of the SDK and through a bounded queue. Spans
    /// that do not fit are dropped. Must be called inside the async runtime.
    ///
    /// # Errors
    /// The exporter cannot be built from this configuration.
    pub(super) fn start(self, service: &'static str) -> anyhow::Result<SdkTracerProvider> {
        let extra_ca = self
            .console
            .as_ref()
            .and_then(|console| console.extra_ca.as_deref());
        let client = RuntimeClient {
            client: client::client(self.timeout, extra_ca)?,
            runtime: Handle::current(),
        };
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_timeout(self.timeout);
        let mut batches = BatchConfigBuilder::default();
        let resource = Resource::builder()
            .with_service_name(self.service_name)
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
            ]);
        let mut provider = SdkTracerProvider::builder().with_resource(resource.build());
        if let Some(console) = &self.console {
            exporter = exporter.with_endpoint(&console.url);
            batches = batches.with_scheduled_delay(DELAY_TO_CONSOLE);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        }
        let exporter = LossReporter {
            exporter: exporter
                .build()
                .context("traces cannot be exported as the OTEL_… variables say")?,
            lost: Mutex::default(),
        };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build());
        let provider = provider.with_span_processor(processor.build()).build();
        trace::record_with(Recorder {
            tracer: provider.tracer(service),
            sampled_by_caller: self.console.is_some(),
        });
        Ok(provider)
    }
}

/// Exports what is still buffered, for at most `deadline`.
pub(super) async fn flush(provider: SdkTracerProvider, deadline: Duration) {
    let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
    let _ = tokio::time::timeout(deadline, flush).await;
}

/// Sends inside the async runtime, which the client needs. The SDK calls it from a thread of its own.
#[derive(Debug)]
struct RuntimeClient {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime
            .spawn(async move { client.send_bytes(request).await })
            .await?
    }
}

/// Reports lost spans, but rarely: the SDK would report each batch.
#[derive(Debug)]
struct LossReporter {
    exporter: opentelemetry_otlp::SpanExporter,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    spans: usize,
    reported_at: Option<Instant>,
}

impl SpanExporter for LossReporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let Err(error) = self.exporter.export(batch).await else {
            return Ok(());
        };
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.spans += spans;
        if lost
            .reported_at
            .is_none_or(|at| at.elapsed() >= LOSS_REPORT_INTERVAL)
        {
            tracing::warn!(event = "trace_export_failed", spans = lost.spans, info = %error);
            *lost = Lost {
                spans: 0,
                reported_at: Some(Instant::now()),
            };
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<bool, String> {
        let mut env = Env::from_pairs(variables.iter().copied());
        let exports = Config::from_env(&mut env, "test").is_some();
        env.finish(exports).map_err(|faults| faults.to_string())
    }

    #[test]
    fn spans_are_exported_only_where_an_endpoint_is_named_and_nothing_switches_it_off() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(false));
        assert_eq!(read(&[ENDPOINT]), Ok(true));
        assert_eq!(
            read(&[(
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://collector/v1/traces"
            )]),
            Ok(true)
        );
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]), Ok(false));
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
    }

    fn exported_to(variables: &[(&str, &str)]) -> Option<Option<String>> {
        let mut env = Env::from_pairs(variables.iter().copied());
        let config = Config::from_env(&mut env, "test");
        let config = env.finish(config).unwrap()?;
        Some(config.console.map(|console| console.url))
    }

    #[test]
    fn without_an_endpoint_the_console_gets_the_spans_if_there_is_one() {
        const CONSOLE: [(&str, &str); 2] = [("CONSOLE_HOST", "console"), ("CONSOLE_PORT", "8080")];
        let [host, port] = CONSOLE;
        let to_console = Some(Some("http://console:8080/v1/traces".to_owned()));
        assert_eq!(exported_to(&CONSOLE), to_console);
        assert_eq!(
            exported_to(&[host, port, ("OTEL_EXPORTER_OTLP_ENDPOINT", "")]),
            to_console
        );
        let encrypted = exported_to(&[host, port, ("SERVICE_TLS_CERT_FILE", "/c.pem")]);
        assert_eq!(encrypted, Some(Some("https://console:8080/v1/traces".to_owned())));
        for incomplete in [
            &[host][..],
            &[port],
            &[host, ("CONSOLE_PORT", "")],
            &[host, port, ("OTEL_SDK_DISABLED", "true")],
            &[host, port, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(exported_to(incomplete), None, "{incomplete:?}");
        }
        let own = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(exported_to(&[host, port, own]), Some(None));
    }

    #[test]
    fn what_would_be_taken_for_something_else_is_refused_by_its_name() {
        let faults = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ])
        .unwrap_err();
        for name in ["OTLP_ENDPOINT", "OTLP_PROTOCOL", "OTLP_TIMEOUT", "TRACES_SAMPLER"] {
            assert!(faults.contains(name), "{name} is not in: {faults}");
        }
    }
}
