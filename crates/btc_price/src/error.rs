//! Why a request got no quote, and the answer to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use common::http::Problem;
use common::money::Currency;

use crate::coinbase::CoinbaseError;

/// Why a request for a quote failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the query is invalid")]
    Invalid(Problem),
    #[error("unsupported currency: {0}.  supported: {supported}", supported = Currency::supported())]
    UnsupportedCurrency(String),
    #[error("no recent price is available, try again shortly")]
    Unavailable(#[from] Unavailable),
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("no price for now")]
pub(crate) struct Unavailable {
    /// Why the last request to the provider failed. Shared by all callers that waited for it.
    #[source]
    pub(crate) cause: Arc<CoinbaseError>,
    /// Until then no further request is sent to the provider.
    pub(crate) retry_at: Instant,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::Invalid(problem) => problem.into_response(),
            Self::UnsupportedCurrency(_) => Problem::client(StatusCode::BAD_REQUEST, detail).into_response(),
            Self::Unavailable(unavailable) => {
                let retry_after = unavailable.retry_at.saturating_duration_since(Instant::now());
                let header = [(RETRY_AFTER, whole_seconds(retry_after).to_string())];
                (header, Problem::unavailable(detail, unavailable)).into_response()
            }
        }
    }
}

/// Rounded up, at least 1.
fn whole_seconds(duration: Duration) -> u64 {
    let rounded_up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(rounded_up).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (30_000, 30)] {
            let duration = Duration::from_millis(millis);
            assert_eq!(whole_seconds(duration), seconds, "{millis} ms");
        }
    }
}
