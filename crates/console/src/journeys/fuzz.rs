//! What is promised of every message with spans.

use axum::http::{HeaderMap, HeaderValue};

use super::{Journeys, MAX_NAME_BYTES, MAX_SPANS};

/// The trace of the order that was placed from the page. Only its spans are kept.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The steps of an order are in the order of their beginning, take no negative time, and have a limit in number and in length, whatever the
/// spans say. A message that is no OTLP changes nothing.
///
/// # Panics
///
/// If that is not so.
pub fn spans(data: &[u8]) {
    let journeys = Journeys::default();
    let mut headers = HeaderMap::new();
    let traceparent = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    headers.insert("traceparent", traceparent);
    journeys.begin(&headers);
    let is_otlp = journeys.receive(data).is_ok();
    assert_eq!(journeys.locked().len(), 1);
    let journey = journeys.journey(TRACE).unwrap();
    assert!(is_otlp || journey.spans.is_empty());
    assert!(!journey.is_projected || !journey.spans.is_empty());
    assert!(journey.spans.len() <= MAX_SPANS);
    assert!(journey.spans.is_sorted_by_key(|step| step.began_ms));
    for step in &journey.spans {
        assert!(step.began_ms >= 0.0 && step.duration_ms >= 0.0, "{step:?}");
        assert!(
            step.began_ms.is_finite() && step.duration_ms.is_finite(),
            "{step:?}"
        );
        assert!(
            step.service.len().max(step.name.len()) <= MAX_NAME_BYTES,
            "{step:?}"
        );
    }
    assert_eq!(journeys.receive(data).is_ok(), is_otlp);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_keeps_the_promise() {
        fuzz::replay("spans", super::spans);
    }
}
