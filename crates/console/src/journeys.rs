//! What the spans of the services say about orders that were placed from the page.

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a promise that is broken is a panic")]
pub(crate) mod fuzz;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use common::trace_context::context_of_headers;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use serde::Serialize;
use utoipa::ToSchema;

/// Orders whose spans are kept; the oldest is forgotten.
const MAX_JOURNEYS: usize = 100;

/// Spans of an order that are kept.
const MAX_SPANS: usize = 64;

/// The names of a service and of a span are cut to this length.
const MAX_NAME_BYTES: usize = 100;

/// The service whose span is the projection, and how the name of that span begins.
const PROJECTION: (&str, &str) = ("read_model_sync", "process ");

type TraceId = [u8; 16];

/// The way of an order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Journey {
    /// 32 hexadecimal digits.
    trace_id: String,
    /// Whether the order is in the read model.
    is_projected: bool,
    /// By their beginning.
    spans: Vec<Step>,
}

/// What a service did for an order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct Step {
    /// Who did it.
    service: String,
    /// What it did.
    name: String,
    /// When it began, in milliseconds after the first.
    began_ms: f64,
    /// How long it took.
    duration_ms: f64,
    /// Whether it failed.
    failed: bool,
}

#[derive(Debug, Clone)]
struct Kept {
    service: String,
    name: String,
    began_ns: u64,
    ended_ns: u64,
    failed: bool,
}

/// The orders that were placed from the page lately.
#[derive(Debug, Default)]
pub(crate) struct Journeys(Mutex<VecDeque<(TraceId, Vec<Kept>)>>);

impl Journeys {
    /// From now on the spans of this request's trace are kept, if its caller wants it to be recorded.
    pub(crate) fn begin(&self, headers: &HeaderMap) {
        let context = context_of_headers(headers);
        let span = context.span();
        let caller = span.span_context();
        if !caller.is_sampled() {
            return;
        }
        let trace_id = caller.trace_id().to_bytes();
        let mut journeys = self.locked();
        if journeys.iter().any(|(known, _)| *known == trace_id) {
            return;
        }
        while journeys.len() >= MAX_JOURNEYS {
            journeys.pop_front();
        }
        journeys.push_back((trace_id, Vec::new()));
    }

    /// Keeps the spans of orders that were placed from the page.
    ///
    /// # Errors
    /// It is no message of OTLP.
    pub(crate) fn receive(&self, message: &[u8]) -> Result<(), prost::DecodeError> {
        let request = ExportTraceServiceRequest::decode(message)?;
        let mut journeys = self.locked();
        for of_process in request.resource_spans {
            let service = service_name(of_process.resource);
            for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let journey = journeys
                    .iter_mut()
                    .find(|(trace_id, _)| *trace_id == *span.trace_id);
                if let Some((_, kept)) = journey
                    && kept.len() < MAX_SPANS
                {
                    kept.push(keep(&service, span));
                }
            }
        }
        Ok(())
    }

    /// The way of the order with this trace id; `None` if it was not placed from the page, or is forgotten.
    pub(crate) fn journey(&self, trace_id: &str) -> Option<Journey> {
        let wanted = read_trace_id(trace_id)?;
        let mut kept = {
            let journeys = self.locked();
            let (_, kept) = journeys.iter().find(|(known, _)| *known == wanted)?;
            kept.clone()
        };
        kept.sort_by_key(|span| span.began_ns);
        let first_ns = kept.first().map_or(0, |span| span.began_ns);
        let (projector, projection) = PROJECTION;
        Some(Journey {
            trace_id: trace_id.to_owned(),
            is_projected: kept
                .iter()
                .any(|span| span.service == projector && span.name.starts_with(projection) && !span.failed),
            spans: kept
                .into_iter()
                .map(|span| Step {
                    began_ms: milliseconds(first_ns, span.began_ns),
                    duration_ms: milliseconds(span.began_ns, span.ended_ns),
                    service: span.service,
                    name: span.name,
                    failed: span.failed,
                })
                .collect(),
        })
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<(TraceId, Vec<Kept>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(service: &str, span: Span) -> Kept {
    Kept {
        service: cut(service),
        name: cut(&span.name),
        began_ns: span.start_time_unix_nano,
        ended_ns: span.end_time_unix_nano,
        failed: span
            .status
            .is_some_and(|status| status.code() == SpanStatus::Error),
    }
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

fn service_name(resource: Option<Resource>) -> String {
    let attributes = resource.into_iter().flat_map(|resource| resource.attributes);
    let mut names = attributes
        .filter(|attribute| attribute.key == "service.name")
        .filter_map(|attribute| match attribute.value?.value? {
            Value::StringValue(name) => Some(name),
            _ => None,
        });
    names.next().unwrap_or_default()
}

/// 32 hexadecimal digits in lower case, as in a `traceparent`.
fn read_trace_id(text: &str) -> Option<TraceId> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 32 || !text.bytes().all(is_hex) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

/// From one time in nanoseconds to another; 0 if that is before it.
fn milliseconds(from_ns: u64, to_ns: u64) -> f64 {
    let micros = to_ns.saturating_sub(from_ns) / 1_000;
    thousandths(micros)
}

#[expect(clippy::float_arithmetic, reason = "a measurement")]
fn thousandths(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn begin(journeys: &Journeys, trace_id: &str, flags: &str) {
        let mut headers = HeaderMap::new();
        let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-{flags}");
        headers.insert("traceparent", traceparent.parse().unwrap());
        journeys.begin(&headers);
    }

    fn span(trace_id: &str, name: &str, (began_ms, ended_ms): (u64, u64), failed: bool) -> Span {
        const NOON_NS: u64 = 1_764_331_200_000_000_000;
        let code = if failed {
            SpanStatus::Error
        } else {
            SpanStatus::Unset
        };
        Span {
            trace_id: read_trace_id(trace_id).unwrap().to_vec(),
            name: name.to_owned(),
            start_time_unix_nano: NOON_NS + began_ms * 1_000_000,
            end_time_unix_nano: NOON_NS + ended_ms * 1_000_000,
            status: Some(Status {
                code: code.into(),
                ..Status::default()
            }),
            ..Span::default()
        }
    }

    fn exported(service: &str, spans: Vec<Span>) -> Vec<u8> {
        let value = Some(Value::StringValue(service.to_owned()));
        let name = KeyValue {
            key: "service.name".to_owned(),
            value: Some(AnyValue { value }),
            ..KeyValue::default()
        };
        let of_process = ResourceSpans {
            resource: Some(Resource {
                attributes: vec![name],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![of_process],
        }
        .encode_to_vec()
    }

    #[test]
    fn spans_of_an_order_are_told_by_their_beginning_and_the_projection_is_noticed() {
        let journeys = Journeys::default();
        begin(&journeys, TRACE, "01");
        let empty = journeys.journey(TRACE).unwrap();
        assert_eq!((empty.is_projected, empty.spans.len()), (false, 0));
        let processed = |failed| span(TRACE, "process pydist:buy_order", (12, 20), failed);
        let export = |service, spans| journeys.receive(&exported(service, spans)).unwrap();
        export("read_model_sync", vec![processed(true)]);
        export(
            "create_buy_order",
            vec![span(TRACE, "PUT /buy_order", (0, 3), false)],
        );
        assert!(!journeys.journey(TRACE).unwrap().is_projected);
        export("read_model_sync", vec![processed(false)]);
        let journey = serde_json::to_value(journeys.journey(TRACE).unwrap()).unwrap();
        assert_eq!(journey["is_projected"], true);
        assert_eq!(
            journey["spans"][0],
            json!({"service": "create_buy_order", "name": "PUT /buy_order", "began_ms": 0.0, "duration_ms": 3.0, "failed": false})
        );
        let second = &journey["spans"][1];
        assert_eq!(
            (&second["began_ms"], &second["failed"]),
            (&json!(12.0), &json!(true))
        );
    }

    #[test]
    fn only_what_was_begun_here_and_is_to_be_recorded_is_kept() {
        let journeys = Journeys::default();
        begin(&journeys, TRACE, "00");
        journeys
            .receive(&exported("a", vec![span(TRACE, "b", (0, 1), false)]))
            .unwrap();
        for unknown in [TRACE, "4BF92F3577B34DA6A3CE929D0E0E4736", "", "x", "é"] {
            assert_eq!(journeys.journey(unknown), None);
        }
        assert!(journeys.locked().is_empty());
    }

    #[test]
    fn orders_and_spans_that_are_kept_have_a_limit() {
        let journeys = Journeys::default();
        let trace_id = |number: usize| format!("{:032x}", number + 1);
        for number in 0..=MAX_JOURNEYS {
            begin(&journeys, &trace_id(number), "01");
            begin(&journeys, &trace_id(number), "01");
        }
        assert_eq!(journeys.locked().len(), MAX_JOURNEYS);
        assert_eq!(journeys.journey(&trace_id(0)), None);
        let last = trace_id(MAX_JOURNEYS);
        let spans = (0..100).map(|_| span(&last, &"é".repeat(500), (0, 1), false));
        journeys.receive(&exported("a", spans.collect())).unwrap();
        let journey = journeys.journey(&last).unwrap();
        assert_eq!(journey.spans.len(), MAX_SPANS);
        assert_eq!(journey.spans[0].name.len(), MAX_NAME_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>) {
            let _ = Journeys::default().receive(&bytes);
        }
    }
}
