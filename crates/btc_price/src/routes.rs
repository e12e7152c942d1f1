//! `GET /buy`.

use std::time::Instant;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use common::http::{self, Detail, FRESH_FOR_MS, FieldFaults, QueryFields, Routes};
use common::money::Currency;
use common::readiness::Readiness;
use utoipa::OpenApi;

use crate::error::ApiError;
use crate::quote::{Quote, Quotes};

/// All routes of this service.
pub(crate) fn router(quotes: Quotes, readiness: Readiness) -> Routes {
    let api = Router::new().route("/buy", get(buy)).with_state(quotes);
    http::routes(api, ApiDoc::openapi(), readiness)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "btc_price", description = "Quotes BTC in a fiat currency."),
    paths(buy)
)]
struct ApiDoc;

/// What one BTC costs a buyer.
///
/// The rate is the price provider's own decimal text. A quote is reused for some seconds, so its timestamp may be that old.
/// Without a valid price from the provider there is no quote.
#[utoipa::path(
    get,
    path = "/buy",
    tag = "prices",
    params(("currency" = inline(Currency), Query, description = "ISO 4217 code", example = "USD")),
    responses(
        (status = 200, description = "A recent quote", body = Quote,
            headers(("X-Fresh-For-Ms" = u64, description = "Milliseconds for which the quote may be reused"))),
        (status = 400, description = "A currency that is not supported", body = Detail,
            example = json!({"detail": ApiError::UnsupportedCurrency("JPY".to_owned()).to_string()})),
        (status = 405, description = "Another method than GET",
            headers(("Allow" = String, description = "The methods of this path")), body = Detail,
            example = json!({"detail": "Method Not Allowed"})),
        (status = 422, description = "No currency in the query", body = FieldFaults, example = json!({"detail": [{
            "type": "missing", "loc": ["query", "currency"], "msg": "Field required", "input": null
        }]})),
        (status = 500, description = "A fault of ours; the log has the same reference", body = Detail, example = json!({
            "detail": "an error occurred.  please contact pydist support and quote reference \
                       5fa733ae-82b4-4ac0-8478-35ff30dae879"
        })),
        (status = 503, description = "The price provider gives no valid price for now",
            headers(("Retry-After" = u32, description = "Seconds until a try makes sense")), body = Detail,
            example = json!({"detail": "no recent price is available, try again shortly"})),
    )
)]
async fn buy(State(quotes): State<Quotes>, query: QueryFields) -> Result<impl IntoResponse, ApiError> {
    let currency = currency(query)?;
    tracing::info!(event = "btc_price_requested", currency = currency.iso3());
    let quote = quotes.quote(currency).await?;
    tracing::info!(
        event = "btc_price_quoted",
        source = quotes.source(),
        timestamp = quote.timestamp,
        currency = quote.currency,
        rate = quote.rate,
    );
    let fresh_for = quote.fresh_until.saturating_duration_since(Instant::now());
    Ok(([(FRESH_FOR_MS, fresh_for.as_millis().to_string())], Json(quote)))
}

fn currency(mut query: QueryFields) -> Result<Currency, ApiError> {
    match query.required("currency", |text| Ok(text.to_owned())) {
        None => Err(ApiError::Invalid(query.rejection())),
        Some(text) => Currency::parse(&text).ok_or(ApiError::UnsupportedCurrency(text)),
    }
}
