//! What a client is told when it gets no quote.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use common::http::Problem;
use common::money::Currency;

use crate::coinbase::PriceError;

/// Why a request for a quote failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The query is not as it must be: 422.
    #[error("the query is invalid")]
    Invalid(Problem),
    /// Not a currency of ours: 400.
    #[error("unsupported currency: {0}.  supported: {supported}", supported = Currency::SUPPORTED)]
    UnsupportedCurrency(String),
    /// No price to be had: 503.
    #[error("no recent price is available, try again shortly")]
    Unavailable(#[from] Unavailable),
}

/// No price to be had for now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no price for now")]
pub struct Unavailable {
    /// What became of the last request for one; shared by all that waited for it.
    #[source]
    pub cause: Arc<PriceError>,
    /// When the provider will be asked again at the earliest.
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
    /// Whole seconds for the header: never too early, never 0.
    fn retry_after_s(&self) -> u64 {
        let whole = self.retry_after.as_secs();
        let begun = u64::from(self.retry_after.subsec_nanos() > 0);
        whole.saturating_add(begun).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{PriceError, Unavailable};

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            let retry_after = Duration::from_millis(millis);
            let unavailable = Unavailable {
                cause: Arc::new(PriceError::Interrupted),
                retry_after,
            };
            assert_eq!(unavailable.retry_after_s(), seconds, "{millis} ms");
        }
    }
}
