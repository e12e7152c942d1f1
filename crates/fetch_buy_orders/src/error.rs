//! The errors of a request.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::database;
use common::http::Problem;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the request is not valid")]
    Invalid(Problem),
    /// The client has no order with this id, or it is not projected yet.
    #[error("unknown last_reference")]
    UnknownReference,
    /// It waited in vain for the order that `Order-Position` names.
    #[error("the order of Order-Position is not on the pages yet, try again shortly")]
    NotProjected,
    #[error("too many requests wait for an order at the moment, try again shortly")]
    TooManyWait,
    #[error("the orders cannot be read at the moment, try again shortly")]
    ReadModel(#[from] Arc<sqlx::Error>),
    #[error("the page cannot be written")]
    Unwritten(#[from] serde_json::Error),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::Invalid(problem) => problem,
            Self::UnknownReference => Problem::client(StatusCode::NOT_FOUND, detail),
            Self::NotProjected => {
                let reason = anyhow::anyhow!("the order is not in the read model");
                Problem::unavailable(detail, reason)
            }
            Self::TooManyWait => {
                Problem::unavailable(detail, anyhow::anyhow!("no request may begin to wait"))
            }
            Self::ReadModel(error) if database::is_transient(&error) => Problem::unavailable(detail, error),
            Self::ReadModel(error) => Problem::internal(error),
            Self::Unwritten(error) => Problem::internal(error),
        }
        .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_is_503_a_bug_of_ours_500_and_an_unknown_reference_404() {
        let away = sqlx::Error::PoolTimedOut;
        let bug = sqlx::Error::ColumnNotFound("id".to_owned());
        for (error, status) in [
            (ApiError::from(Arc::new(away)), StatusCode::SERVICE_UNAVAILABLE),
            (ApiError::from(Arc::new(bug)), StatusCode::INTERNAL_SERVER_ERROR),
            (ApiError::UnknownReference, StatusCode::NOT_FOUND),
        ] {
            assert_eq!(error.into_response().status(), status);
        }
    }
}
