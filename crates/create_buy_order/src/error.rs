//! Why a request was refused, and the answer to it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::database::is_transient;
use common::http::Problem;
use common::money::{BtcAmount, BtcRate, Currency};

use crate::order::{CAP, Voided};
use crate::price::PriceError;

/// Why `PUT /buy_order` made no order. `Display` is what the client may read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the request is faulty")]
    Invalid(Problem),
    #[error("the order would take the book past {CAP} BTC")]
    OverCap,
    #[error("the order would take what the client has in the book past {0} BTC")]
    OverClientLimit(BtcAmount),
    #[error("the order {} was voided: {}", .0.external_id, .0.reason)]
    Voided(Voided),
    #[error("the order is {btc} BTC at the market rate, and the smallest order is {min} BTC")]
    TooSmall { btc: BtcAmount, min: BtcAmount },
    #[error("the order is {btc} BTC at the market rate, and the largest order is {max} BTC")]
    TooLarge { btc: BtcAmount, max: BtcAmount },
    #[error("the market rate is {rate}, above the max_rate of {max_rate}")]
    RateAboveMax { rate: BtcRate, max_rate: BtcRate },
    #[error("orders in {0} are not available yet, try again shortly with the same idempotence_key")]
    NoCurrency(Currency),
    /// The write model was not seeded.
    #[error("client {0} is not in the write model")]
    NoClient(i64),
    /// A token names it.
    #[error("client {0} is not known here")]
    UnknownClient(i64),
    #[error("no recent price is available, try again shortly")]
    PriceUnavailable(#[source] Arc<PriceError>),
    #[error("orders cannot be looked up at the moment, try again shortly")]
    NotRead(#[source] Arc<sqlx::Error>),
    #[error("orders cannot be written at the moment, try again shortly with the same idempotence_key")]
    NotWritten(#[source] WriteError),
}

/// Why a draft got no verdict. It is not known whether the order was written, except after [`WriteError::Busy`]. Repeating the request is
/// safe.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("too many orders are waiting")]
    Busy,
    #[error("the write model did not answer in {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The service is stopping.
    #[error("the writer has stopped")]
    Stopped,
    #[error("the batch could not be written")]
    Database(#[source] Arc<sqlx::Error>),
}

impl ApiError {
    /// Every value of the label `reason` of the metric `buy_orders_refused_total`.
    pub(crate) const REASONS: [&'static str; 16] = [
        "invalid",
        "over_cap",
        "over_client_limit",
        "voided",
        "too_small",
        "too_large",
        "rate_above_max",
        "no_currency",
        "no_client",
        "unknown_client",
        "no_price",
        "not_read",
        "busy",
        "timed_out",
        "stopping",
        "not_written",
    ];

    /// The reason, as a label in `/metrics`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::OverCap => "over_cap",
            Self::OverClientLimit(_) => "over_client_limit",
            Self::Voided(_) => "voided",
            Self::TooSmall { .. } => "too_small",
            Self::TooLarge { .. } => "too_large",
            Self::RateAboveMax { .. } => "rate_above_max",
            Self::NoCurrency(_) => "no_currency",
            Self::NoClient(_) => "no_client",
            Self::UnknownClient(_) => "unknown_client",
            Self::PriceUnavailable(_) => "no_price",
            Self::NotRead(_) => "not_read",
            Self::NotWritten(WriteError::Busy) => "busy",
            Self::NotWritten(WriteError::TimedOut(_)) => "timed_out",
            Self::NotWritten(WriteError::Stopped) => "stopping",
            Self::NotWritten(WriteError::Database(_)) => "not_written",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::Invalid(problem) => problem,
            Self::OverCap
            | Self::OverClientLimit(_)
            | Self::Voided(_)
            | Self::TooSmall { .. }
            | Self::TooLarge { .. }
            | Self::RateAboveMax { .. } => Problem::client(StatusCode::CONFLICT, detail),
            Self::NoCurrency(currency) => {
                let reason = anyhow::anyhow!(
                    "the table currency has no {currency}: the schema is older than this service"
                );
                Problem::unavailable(detail, reason)
            }
            Self::UnknownClient(_) => Problem::client(StatusCode::FORBIDDEN, detail),
            Self::NoClient(_) => Problem::internal(anyhow::anyhow!(detail)),
            Self::PriceUnavailable(error) => Problem::unavailable(detail, error),
            Self::NotRead(error) if !is_transient(&error) => Problem::internal(error),
            Self::NotRead(error) => Problem::unavailable(detail, error),
            Self::NotWritten(WriteError::Database(error)) if !is_transient(&error) => {
                Problem::internal(WriteError::Database(error))
            }
            Self::NotWritten(error) => Problem::unavailable(detail, error),
        }
        .into_response()
    }
}
