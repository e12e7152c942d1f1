//! Metrics of requests and connections.

use std::sync::LazyLock;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

use super::context::known_method;
use crate::metrics::{
    HistogramVec, IntCounterVec, IntGauge, LATENCIES, count_in, counters, gauge, histograms,
};

/// Label of paths without a route and of unusual methods: clients can send any number of both.
const OTHER: &str = "other";

pub(super) static HTTP: LazyLock<Http> = LazyLock::new(|| Http {
    requests: counters(
        "http_requests_total",
        "Answered requests.",
        &["route", "method", "status"],
    ),
    durations: histograms(
        "http_request_duration_seconds",
        "Time from the headers of a request to its answer.",
        &["route", "method"],
        &LATENCIES,
    ),
    in_flight: gauge("http_requests_in_flight", "Requests that have no answer yet."),
    connections: gauge("http_connections_open", "Open connections of clients."),
});

pub(super) struct Http {
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
    pub(super) connections: IntGauge,
}

/// Counts a request by the template of its route, never by its path. If the client hangs up before the answer, the request is not counted.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = count_in(&HTTP.in_flight);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match known_method(request.method()) {
        "CONNECT" | "TRACE" | "_OTHER" => OTHER,
        known => known,
    };
    let response = next.run(request).await;
    let route = route.as_ref().map_or(OTHER, MatchedPath::as_str);
    HTTP.requests
        .with_label_values(&[route, method, response.status().as_str()])
        .inc();
    HTTP.durations
        .with_label_values(&[route, method])
        .observe(begun.elapsed().as_secs_f64());
    response
}
