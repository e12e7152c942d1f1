//! The errors of a request.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::database;
use common::http::Problem;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Invalid parameters, each named in the response.
    #[error("the request is not valid")]
    Invalid(Problem),
    /// The client has no order with this id, or it is not projected yet.
    #[error("unknown last_reference")]
    UnknownReference,
    /// The read model failed.
    #[error("the orders cannot be read at the moment, try again shortly")]
    ReadModel(#[from] Arc<sqlx::Error>),
    /// The page could not be written as JSON.
    #[error("the page cannot be written")]
    Unwritten(#[from] serde_json::Error),
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        match self {
            Self::Invalid(problem) => problem,
            Self::UnknownReference => Problem::client(StatusCode::NOT_FOUND, detail),
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
    fn a_database_that_is_away_is_503_and_a_bug_of_ours_500() {
        let status = |error: sqlx::Error| ApiError::from(Arc::new(error)).into_response().status();
        assert_eq!(status(sqlx::Error::PoolTimedOut), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            status(sqlx::Error::ColumnNotFound("id".to_owned())),
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }

    #[test]
    fn an_unknown_reference_is_404() {
        assert_eq!(
            ApiError::UnknownReference.into_response().status(),
            StatusCode::NOT_FOUND
        );
    }
}
