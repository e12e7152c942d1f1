//! Why a request got no quote, and the answer to it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use common::http::Problem;
use common::money::Currency;

use crate::coinbase::CoinbaseError;

/// Why a request for a quote failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The query is faulty: 422.
    #[error("the query is invalid")]
    Invalid(Problem),
    /// The currency is not supported: 400.
    #[error("unsupported currency: {0}.  supported: {supported}", supported = Currency::supported())]
    UnsupportedCurrency(String),
    /// There is no price: 503.
    #[error("no recent price is available, try again shortly")]
    Unavailable(#[from] Unavailable),
}

/// There is no price at the moment.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no price for now")]
pub struct Unavailable {
    /// Why the last request to the provider failed. Shared by all callers that waited for it.
    #[source]
    pub cause: Arc<CoinbaseError>,
    /// How long no further request is sent to the provider.
    pub retry_after: Duration,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::Invalid(problem) => problem.into_response(),
            Self::UnsupportedCurrency(_) => Problem::client(StatusCode::BAD_REQUEST, detail).into_response(),
            Self::Unavailable(unavailable) => {
                let seconds = unavailable.retry_after_s();
                let mut response = Problem::unavailable(detail, unavailable).into_response();
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
        }
    }
}

impl Unavailable {
    /// Whole seconds, rounded up, at least 1.
    fn retry_after_s(&self) -> u64 {
        let rounded_up = u64::from(self.retry_after.subsec_nanos() > 0);
        self.retry_after.as_secs().saturating_add(rounded_up).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            let retry_after = Duration::from_millis(millis);
            let unavailable = Unavailable {
                cause: Arc::new(CoinbaseError::Interrupted),
                retry_after,
            };
            assert_eq!(unavailable.retry_after_s(), seconds, "{millis} ms");
        }
    }
}
