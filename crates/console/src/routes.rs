//! The HTTP surface: the page, what it is told, and what it asks the services.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State as FromState};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use common::http::{self, Detail, Problem, Routes};
use common::readiness::Readiness;
use utoipa::OpenApi;

use crate::host_check::{OwnName, refuse_other_sites};
use crate::journeys::{Journey, Journeys};
use crate::page;
use crate::pass_on::PassOn;
use crate::state::{Point, State as ClusterState};
use crate::viewers::Viewers;

/// A service exports at most 512 spans at once.
const MAX_SPANS_BYTES: usize = 1024 * 1024;

const PROTOBUF: &str = "application/x-protobuf";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "console",
        description = "The page of those who operate the cluster: what each part does, and what is wrong with it"
    ),
    paths(events, put_order, get_orders, journey, receive_spans),
    components(schemas(ClusterState, Point))
)]
struct ApiDoc;

/// What the handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) viewers: Viewers,
    pub(crate) pass_on: PassOn,
    pub(crate) journeys: Arc<Journeys>,
}

/// All routes of the service.
pub(crate) fn router(state: State, own_name: Option<&str>) -> Routes {
    let api = Router::new()
        .route("/events", get(events))
        .route("/buy_order", put(put_order))
        .route("/buy_orders", get(get_orders))
        .route("/journeys/{trace_id}", get(journey))
        .route("/v1/traces", post(receive_spans))
        .merge(page::routes())
        .with_state(state);
    let own_name: OwnName = own_name.map(Arc::from);
    http::routes(api, ApiDoc::openapi(), Readiness::default())
        .map(|router| router.layer(from_fn_with_state(own_name.clone(), refuse_other_sites)))
}

/// What the cluster does, as server-sent events.
///
/// One event `history` with the points of the last 5 minutes, oldest first, then one event `state` each second.
#[utoipa::path(
    get,
    path = "/events",
    responses(
        (status = 200, description = "The data of an event `state` is a `State`; of `history` it is `{\"points\": [Point, …]}`", body = String,
            content_type = "text/event-stream"),
        (status = 503, description = "Too many pages are open", body = Detail,
            example = json!({"detail": "32 pages are open already: close one and load this one again"})),
    )
)]
async fn events(FromState(state): FromState<State>) -> Result<impl IntoResponse, Problem> {
    state.viewers.stream()
}

/// Places an order: passed on to `create_buy_order`, whose answer this is.
#[utoipa::path(
    put,
    path = "/buy_order",
    request_body(content = Value, description = "As `create_buy_order` takes it", content_type = "application/json"),
    responses(
        (status = 200, description = "As `create_buy_order` answers", body = Value),
        (status = 503, description = "`create_buy_order` does not answer", body = Detail,
            example = json!({"detail": "create_buy_order does not answer, try again"})),
    )
)]
async fn put_order(
    FromState(state): FromState<State>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // Before the services know of it: their spans may come sooner than their answer.
    state.journeys.begin(&headers);
    state.pass_on.put_order(&headers, body).await
}

/// A page of orders: passed on to `fetch_buy_orders`, whose answer this is.
#[utoipa::path(
    get,
    path = "/buy_orders",
    responses(
        (status = 200, description = "As `fetch_buy_orders` answers", body = Value),
        (status = 503, description = "`fetch_buy_orders` does not answer", body = Detail,
            example = json!({"detail": "fetch_buy_orders does not answer, try again"})),
    )
)]
async fn get_orders(
    FromState(state): FromState<State>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    state.pass_on.get_orders(&headers, query.as_deref()).await
}

/// The way of an order that was placed from the page, by the spans of the services.
#[utoipa::path(
    get,
    path = "/journeys/{trace_id}",
    params(("trace_id" = String, Path, description = "Of the `traceparent` of its `PUT /buy_order`: 32 hexadecimal digits")),
    responses(
        (status = 200, description = "What is known so far", body = Journey),
        (status = 404, description = "No order with this trace id was placed from the page lately", body = Detail,
            example = json!({"detail": "unknown trace_id"})),
    )
)]
async fn journey(
    FromState(state): FromState<State>,
    Path(trace_id): Path<String>,
) -> Result<Json<Journey>, Problem> {
    let journey = state.journeys.journey(&trace_id);
    let unknown = || Problem::client(StatusCode::NOT_FOUND, "unknown trace_id");
    journey.map(Json).ok_or_else(unknown)
}

/// Takes spans of the services: OTLP over HTTP.
#[utoipa::path(
    post,
    path = "/v1/traces",
    request_body(content = String, description = "`ExportTraceServiceRequest`", content_type = "application/x-protobuf"),
    responses(
        (status = 200, description = "`ExportTraceServiceResponse`", body = String, content_type = "application/x-protobuf"),
        (status = 400, description = "It is no such message", body = Detail, example = json!({"detail": "this is no OTLP"})),
        (status = 413, description = "It is too long", body = Detail, example = json!({"detail": "too many spans at once"})),
        (status = 415, description = "It is not protobuf", body = Detail,
            example = json!({"detail": "spans are taken as application/x-protobuf"})),
    )
)]
async fn receive_spans(
    FromState(state): FromState<State>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    if headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) != Some(PROTOBUF.as_bytes()) {
        return Err(Problem::client(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "spans are taken as application/x-protobuf",
        ));
    }
    let too_long = |_| Problem::client(StatusCode::PAYLOAD_TOO_LARGE, "too many spans at once");
    let message = to_bytes(body, MAX_SPANS_BYTES).await.map_err(too_long)?;
    let malformed = |_| Problem::client(StatusCode::BAD_REQUEST, "this is no OTLP");
    state.journeys.receive(&message).map_err(malformed)?;
    // An empty message says that all were taken.
    Ok(([(CONTENT_TYPE, PROTOBUF)], ""))
}
