//! Why a request is refused, and the answer to it (RFC 6750).

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa::openapi::header::Header;
use utoipa::openapi::{self, ContentBuilder, Ref, ResponseBuilder};

use crate::http::Problem;
use crate::metrics::{IntCounterVec, counters};

static REFUSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "requests_not_authorized_total",
        "Requests that were refused because of their token, by reason.",
        &["reason"],
    )
});

/// Why a request is refused. `Display` is what the client may read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header `Authorization` is missing, doubled or of another scheme.
    #[error("a bearer token is needed: Authorization: Bearer <token>")]
    NoToken,
    /// The token is not accepted; the sentence says why.
    #[error("the token is not accepted: {0}")]
    Token(&'static str),
    /// No key of the issuer has the token's `kid`.
    #[error("the token is not accepted: it is signed with a key that is not known")]
    UnknownKey,
    /// The token is good, but not for this.
    #[error("the token does not have the scope {0}")]
    NoScope(&'static str),
    /// The issuer has not been reached yet.
    #[error("tokens cannot be verified at the moment, try again shortly")]
    NoKeys,
}

impl Refusal {
    const REASONS: [&'static str; 5] = ["no_token", "token", "unknown_key", "no_scope", "no_keys"];

    fn reason(&self) -> &'static str {
        let [no_token, token, unknown_key, no_scope, no_keys] = Self::REASONS;
        match self {
            Self::NoToken => no_token,
            Self::Token(_) => token,
            Self::UnknownKey => unknown_key,
            Self::NoScope(_) => no_scope,
            Self::NoKeys => no_keys,
        }
    }

    /// Shows the metric with a zero for each reason.
    pub(super) fn show_metric() {
        for reason in Self::REASONS {
            let _ = REFUSED.with_label_values(&[reason]);
        }
    }

    /// The answer to it in the description of a service.
    pub(super) fn described(&self, description: &str) -> openapi::Response {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name("Detail")))
            .example(Some(json!({"detail": self.to_string()})))
            .build();
        ResponseBuilder::new()
            .description(description)
            .header("WWW-Authenticate", Header::default())
            .content("application/json", content)
            .build()
    }

    /// Counts and logs it.
    pub(super) fn report(&self) {
        let reason = self.reason();
        REFUSED.with_label_values(&[reason]).inc();
        tracing::info!(event = "request_not_authorized", reason, info = %self);
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        let challenge = match &self {
            Self::NoToken => "Bearer".to_owned(),
            Self::Token(_) | Self::UnknownKey => "Bearer error=\"invalid_token\"".to_owned(),
            Self::NoScope(scope) => format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
            Self::NoKeys => return Problem::unavailable(detail, self).into_response(),
        };
        let status = match self {
            Self::NoScope(_) => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        ([(WWW_AUTHENTICATE, challenge)], Problem::client(status, detail)).into_response()
    }
}
