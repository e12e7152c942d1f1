//! The HTTP surface: `GET /buy_orders`.

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;

use axum::Router;
use axum::extract::{FromRef, State as FromState};
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use axum::response::IntoResponse;
use axum::routing::get;
use common::auth::{Callers, Client};
use common::http::{self, Detail, FieldFaults, ORDER_POSITION, QueryFields, Routes, field};
use common::readiness::Readiness;
use utoipa::{IntoParams, OpenApi};
use uuid::Uuid;

use crate::arrivals::Arrivals;
use crate::db::{OrderReference, PageRequest};
use crate::error::ApiError;
use crate::metrics::METRICS;
use crate::page::Page;
use crate::reader::Reader;

const DEFAULT_PAGE_SIZE: u32 = 10;
const MAX_PAGE_SIZE: u32 = 1000;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "fetch_buy_orders",
        description = "Pages of BTC buy orders, newest first"
    ),
    paths(buy_orders)
)]
struct ApiDoc;

/// What the handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) callers: Callers,
    pub(crate) arrivals: Arrivals,
    pub(crate) reader: Reader,
}

impl FromRef<State> for Callers {
    fn from_ref(state: &State) -> Self {
        state.callers.clone()
    }
}

/// All routes of the service.
pub(crate) fn router(state: State, readiness: Readiness) -> Routes {
    let mut document = ApiDoc::openapi();
    state.callers.describe(&mut document);
    let api = Router::new()
        .route("/buy_orders", get(buy_orders))
        .with_state(state);
    http::routes(api, document, readiness)
}

/// The query parameters, and the header.
#[derive(Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// The `last_reference` of the page before: the id of the last row seen. Without it the newest orders are answered.
    #[param(value_type = Uuid, required = false)]
    last_reference: Option<Uuid>,
    /// How many rows to answer at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 10, example = 10)]
    page_size: u32,
    /// The order to wait for.
    #[param(ignore)]
    position: Option<Uuid>,
}

impl PageQuery {
    fn read(mut query: QueryFields, headers: &HeaderMap) -> Result<Self, ApiError> {
        let last_reference = query.optional("last_reference", field::uuid);
        let page_size = query.optional("page_size", |text| field::integer_between(text, 1, MAX_PAGE_SIZE));
        let position = query.optional_header(ORDER_POSITION, headers, field::uuid);
        match (last_reference, page_size, position) {
            (Some(last_reference), Some(page_size), Some(position)) => Ok(Self {
                last_reference,
                page_size: page_size.unwrap_or(DEFAULT_PAGE_SIZE),
                position,
            }),
            _ => Err(ApiError::Invalid(query.rejection())),
        }
    }
}

/// A page of orders, newest first.
///
/// Walking the pages by `last_reference` shows every order that was there at the first page exactly once, however many arrive meanwhile.
#[utoipa::path(
    get,
    path = "/buy_orders",
    params(
        PageQuery,
        ("Order-Position" = Option<Uuid>, Header, description = "What `PUT /buy_order` answered in this header: waits for at most 2 s until \
            that order is projected, so that the pages contain it unless it was voided"),
    ),
    responses(
        (status = 200, description = "The page", body = Page, headers(
            ("Link" = String, description = "Where the next page is, relative to this one, `rel=\"next\"`; when this page is full"),
        ), links(("next" = (
            operation_id = "buy_orders",
            parameters(
                ("last_reference" = "$response.body#/last_reference"),
                ("page_size" = "$request.query.page_size")
            ),
            description = "The next page"
        )))),
        (status = 404, description = "No order has the id `last_reference`", body = Detail,
            example = json!({"detail": "unknown last_reference"})),
        (status = 405, description = "Another method than GET", headers(("Allow" = String)), body = Detail,
            example = json!({"detail": "Method Not Allowed"})),
        (status = 422, description = "Faulty parameters, each with an item", body = FieldFaults, example = json!({"detail": [{
            "type": "less_than_equal",
            "loc": ["query", "page_size"],
            "msg": "Input should be less than or equal to 1000",
            "input": "1001",
            "ctx": {"le": 1000}
        }]})),
        (status = 500, description = "A fault of ours; the log has the same reference", body = Detail, example = json!({
            "detail": "an error occurred.  please contact pydist support and quote reference 5fa733ae-82b4-4ac0-8478-35ff30dae879"
        })),
        (status = 503, description = "The orders cannot be read at the moment, or the order of `Order-Position` is not projected yet",
            headers(("Retry-After" = u32, description = "Seconds until a try makes sense")), body = Detail,
            example = json!({"detail": "the orders cannot be read at the moment, try again shortly"})),
    )
)]
async fn buy_orders(
    client: Client,
    FromState(state): FromState<State>,
    headers: HeaderMap,
    query: QueryFields,
) -> Result<impl IntoResponse, ApiError> {
    let query = PageQuery::read(query, &headers)?;
    tracing::info!(
        event = "buy_orders_page_requested",
        client_id = client.id,
        last_reference = query.last_reference.map(tracing::field::display),
        page_size = query.page_size,
    );
    if let Some(external_id) = query.position {
        let client_id = client.id;
        let order = OrderReference {
            client_id,
            external_id,
        };
        state.arrivals.wait_for(order).await?;
    }
    let page = state.reader.page(PageRequest {
        client_id: client.id,
        last_reference: query.last_reference,
        page_size: query.page_size,
    });
    let page = page.await?.ok_or(ApiError::UnknownReference)?;
    METRICS.served(page.rows.len());
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let link = page.next(query.page_size).map(|link| [(LINK, link)]);
    // Not `axum::Json`: it writes into a `BytesMut`, and pages of 100 were a tenth to a fifth slower.
    Ok((content_type, link, serde_json::to_vec(&page)?))
}
