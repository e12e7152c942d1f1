//! `PUT /buy_order`.

#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "a broken promise is a panic")]
pub mod fuzz;
mod request;

use axum::extract::{FromRef, State as FromState};
use axum::response::{IntoResponse as _, Response};
use axum::routing::put;
use axum::{Json, Router};
use common::auth::{Callers, Client};
use common::http::{BodyFields, Detail, FieldFaults, ORDER_POSITION, Routes};
use common::money::BtcRate;
use common::readiness::Readiness;
use common::timestamp::rfc3339_micros;
use opentelemetry::Context;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use crate::batch::{self, Orders};
use crate::error::ApiError;
use crate::limits::OrderLimits;
use crate::look_up::LookUp;
use crate::metrics::METRICS;
use crate::order::{self, Draft, RequestIdentity, Verdict};
use crate::price::Prices;

use request::BuyOrderRequest;

/// What the handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) callers: Callers,
    pub(crate) look_up: LookUp,
    pub(crate) prices: Prices,
    pub(crate) limits: OrderLimits,
    pub(crate) orders: Orders,
}

impl FromRef<State> for Callers {
    fn from_ref(state: &State) -> Self {
        state.callers.clone()
    }
}

/// All routes of this service.
pub(crate) fn router(state: State, readiness: Readiness) -> Routes {
    let mut document = ApiDoc::openapi();
    state.callers.describe(&mut document);
    let api = Router::new()
        .route("/buy_order", put(put_buy_order))
        .with_state(state);
    common::http::routes(api, document, readiness)
}

/// The description of this service for `/openapi.json` and `/docs`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "create_buy_order",
        description = "Accepts orders to buy BTC for fiat at the market price, exactly once."
    ),
    paths(put_buy_order)
)]
struct ApiDoc;

/// The answer to an accepted order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuyOrderResponse {
    /// The key of the request.
    #[schema(example = "5fa733ae-82b4-4ac0-8478-35ff30dae879")]
    idempotence_key: Uuid,
    buy_order: BuyOrder,
}

/// An order in the book. Decimals are strings, so that no client reads them through a float.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuyOrder {
    /// The id of the order.
    #[schema(example = "3b14efb6-041f-4d31-b35a-37c82333af36")]
    id: Uuid,
    /// When it was accepted: UTC, with microseconds.
    #[schema(example = "2026-11-23T15:37:32.531853Z", format = DateTime)]
    created_at: String,
    /// The currency that was paid in.
    #[schema(example = "USD")]
    currency: &'static str,
    /// The amount that was paid, with 2 decimals.
    #[schema(example = "123.45")]
    currency_amount: String,
    /// Fiat per BTC, with 8 decimals.
    #[schema(example = "48478.88000000")]
    btc_rate: String,
    /// The BTC that was bought: `currency_amount / btc_rate`, rounded up to 8 decimals.
    #[schema(example = "0.00254647")]
    btc_amount: String,
}

/// Buy BTC for fiat at the market price
///
/// Client, currency, amount and `idempotence_key` name one order for ever: a repeat is answered with that order and the header
/// `Idempotent-Replayed: true`, whatever its `max_rate` and the market rate are.
#[utoipa::path(
    put, path = "/buy_order", request_body = BuyOrderRequest,
    responses(
        (status = 200, body = BuyOrderResponse, description = "The order, new or made by an equal request before",
            headers(
                ("Idempotent-Replayed" = bool, description = "`true` when an equal request made the order before, else absent"),
                ("Order-Position" = Uuid, description = "Passed back to `GET /buy_orders`, it makes that wait until pages can show this order. Opaque"),
            ),
            links(("repeat" = (operation_id = "put_buy_order", request_body = "$request.body",
                description = "The same request again is answered with the same order")))),
        (status = 400, body = Detail, description = "The body broke off, or its encoding is faulty",
            example = json!({"detail": "the body could not be read"})),
        (status = 405, body = Detail, description = "Another method than PUT", headers(("Allow" = String)),
            example = json!({"detail": "Method Not Allowed"})),
        (status = 408, body = Detail, description = "The body took too long to arrive",
            example = json!({"detail": "the body took too long to arrive"})),
        (status = 409, body = Detail, description = "The order would take the book past 100 BTC, or what its client has in the book past the limit of this deployment; it is smaller or larger than this deployment accepts; the market rate is above `max_rate`; or it was voided by an operator. This request changed nothing",
            example = json!({"detail": ApiError::OverCap.to_string()})),
        (status = 413, body = Detail, description = "The body is too large",
            example = json!({"detail": "the body is larger than 16384 bytes"})),
        (status = 422, body = FieldFaults, description = "Every fault of the request, in the order of the fields",
            example = json!({"detail": [{
                "type": "value_error",
                "loc": ["body", "amount"],
                "msg": "Value error, amount must be greater than 0",
                "input": "0",
                "ctx": {"error": "amount must be greater than 0"}
            }]})),
        (status = 500, body = Detail, description = "A fault of ours; the log has the same reference", example = json!({
            "detail": "an error occurred.  please contact pydist support and quote reference 5fa733ae-82b4-4ac0-8478-35ff30dae879"
        })),
        (status = 503, body = Detail, description = "No price, no write model, or not yet this currency: try again with the same idempotence_key",
            headers(("Retry-After" = u64, description = "Seconds to wait")),
            example = json!({"detail": "no recent price is available, try again shortly"})),
    ),
)]
pub(crate) async fn put_buy_order(
    client: Client,
    FromState(state): FromState<State>,
    body: BodyFields,
) -> Result<Response, ApiError> {
    let answer = accept(&state, client, body).await;
    answer.inspect_err(|error| METRICS.count_refusal(error))
}

async fn accept(state: &State, client: Client, body: BodyFields) -> Result<Response, ApiError> {
    let BuyOrderRequest {
        currency,
        amount,
        idempotence_key,
        max_rate,
    } = BuyOrderRequest::read(body).map_err(ApiError::Invalid)?;
    let client_id = client.id;
    tracing::info!(
        event = "create_buy_order_request_received", %currency, %amount, %idempotence_key, client_id,
        max_rate = max_rate.map(tracing::field::display),
    );

    let identity = RequestIdentity {
        client_id,
        currency,
        amount,
        idempotence_key,
    };
    let (order, replayed) = match decide(state, identity, max_rate).await? {
        Verdict::Created(order) => (order, false),
        Verdict::Repeated(order) => (order, true),
        Verdict::Voided(voided) => return Err(ApiError::Voided(voided)),
        Verdict::OverCap => return Err(ApiError::OverCap),
        Verdict::OverClientLimit(limit) => return Err(ApiError::OverClientLimit(limit)),
        Verdict::NoCurrency => return Err(ApiError::NoCurrency(currency)),
        Verdict::NoClient if state.callers.are_known() => return Err(ApiError::UnknownClient(client_id)),
        Verdict::NoClient => return Err(ApiError::NoClient(client_id)),
    };
    if replayed {
        METRICS.replayed.inc();
        tracing::info!(event = "buy_order_request_idempotence_cache_hit", client_id, %currency, %amount, %idempotence_key);
    }
    tracing::info!(event = "create_buy_order_response_returned", external_id = %order.external_id);
    // Clients take it as opaque. That the order itself is waited for, and not all orders up to it, only the two services know.
    let position = [(ORDER_POSITION, order.external_id.to_string())];
    let header = replayed.then_some([("idempotent-replayed", "true")]);
    let body = BuyOrderResponse {
        idempotence_key,
        buy_order: BuyOrder {
            id: order.external_id,
            created_at: rfc3339_micros(order.created_at),
            currency: currency.iso3(),
            currency_amount: order.currency_amount.to_string(),
            btc_rate: order.btc_rate.to_string(),
            btc_amount: order.btc_amount.to_string(),
        },
    };
    Ok((position, header, Json(body)).into_response())
}

/// With a quote at hand, one call of the write model decides whether the request is a repeat or a new order; a repeat may then wait for the
/// new orders of its batch. Without a quote the request is looked up first, because a repeat needs no price. A request that cannot be a new
/// order at this rate is looked up, too: it may have been accepted at another rate.
async fn decide(
    state: &State,
    identity: RequestIdentity,
    max_rate: Option<BtcRate>,
) -> Result<Verdict, ApiError> {
    let draft_at = |rate| draft(identity, rate, max_rate, state.limits);
    let at_hand = match state.prices.at_hand(identity.currency).map(draft_at) {
        Some(Ok(draft)) => return write(state, draft).await,
        Some(Err(refusal)) => Some(refusal),
        None => None,
    };
    let known = state.look_up.find(identity).await;
    if let Some(verdict) = known.map_err(ApiError::NotRead)? {
        return Ok(verdict);
    }
    if let Some(refusal) = at_hand {
        return Err(refusal);
    }
    // Last, so that the price is as recent as possible.
    let asked = state.prices.ask(identity.currency).await;
    let rate = asked.map_err(ApiError::PriceUnavailable)?;
    write(state, draft_at(rate)?).await
}

/// The draft of a new order at this rate.
///
/// # Errors
/// When the rate is above `max_rate`, or the order is beyond the limits or larger than the whole book.
fn draft(
    identity: RequestIdentity,
    rate: BtcRate,
    max_rate: Option<BtcRate>,
    limits: OrderLimits,
) -> Result<Draft, ApiError> {
    if let Some(max_rate) = max_rate
        && rate > max_rate
    {
        return Err(ApiError::RateAboveMax { rate, max_rate });
    }
    let btc_amount = order::btc_amount(identity.amount, rate).ok_or(ApiError::OverCap)?;
    limits.check(btc_amount)?;
    Ok(Draft {
        identity,
        external_id: Uuid::new_v4(),
        rate,
        btc_amount,
        trace: batch::span(&Context::current()),
    })
}

async fn write(state: &State, draft: Draft) -> Result<Verdict, ApiError> {
    state.orders.write(draft).await.map_err(ApiError::NotWritten)
}
