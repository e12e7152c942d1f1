//! Error answers in FastAPI's form.

use std::sync::Arc;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::field::FieldFault;

/// When a client may try again after a `503`, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// Where in the request a fault is: `body` or `query`, then the name of a field or an offset in characters.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Location {
    /// The part of the request, or the name of a field.
    Name(&'static str),
    /// An offset in the body, in characters.
    Offset(usize),
}

/// One item of the `detail` of a `422`. Clients match on `type` and `loc`; `msg` is for people.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorItem {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: Vec<Location>,
    msg: String,
    input: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<Value>,
}

impl ErrorItem {
    /// An item for a fault found at `loc` in `input`, the faulty value as it came.
    #[must_use]
    pub fn new(loc: Vec<Location>, fault: FieldFault, input: Box<RawValue>) -> Self {
        Self {
            kind: fault.kind,
            loc,
            msg: fault.msg,
            input,
            ctx: fault.ctx,
        }
    }
}

/// An answer other than success.
#[derive(Debug)]
pub enum Problem {
    /// `422`: every fault of the request.
    Invalid(Vec<ErrorItem>),
    /// A `4xx` that the client can mend, with one sentence for it.
    Client(StatusCode, String),
    /// `503` with `Retry-After`: a dependency is away; the sentence is for the client, the error for the log.
    Unavailable(String, anyhow::Error),
    /// `500` with a reference: a fault of ours; the error is for the log.
    Internal(anyhow::Error),
}

/// What the log gets to know of a `5xx`; travels beside the answer to where it is logged once.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: Arc<anyhow::Error>,
    pub(super) reference: Uuid,
}

impl Problem {
    /// `422` with these items.
    #[must_use]
    pub const fn invalid(items: Vec<ErrorItem>) -> Self {
        Self::Invalid(items)
    }

    /// A `4xx` with one sentence for the client.
    pub fn client(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::Client(status, detail.into())
    }

    /// `503`: `detail` for the client, `error` for the log.
    pub fn unavailable(detail: impl Into<String>, error: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable(detail.into(), error.into())
    }

    /// `500`: `error` for the log, under a reference that the client gets.
    pub fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::Internal(error.into())
    }
}

#[derive(Serialize)]
struct Body<T> {
    detail: T,
}

fn failed(status: StatusCode, detail: String, error: anyhow::Error, reference: Uuid) -> Response {
    let mut response = (status, Json(Body { detail })).into_response();
    response.extensions_mut().insert(Failure {
        error: Arc::new(error),
        reference,
    });
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(detail) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(Body { detail })).into_response()
            }
            Self::Client(status, detail) => (status, Json(Body { detail })).into_response(),
            Self::Unavailable(detail, error) => {
                let mut response = failed(StatusCode::SERVICE_UNAVAILABLE, detail, error, Uuid::new_v4());
                response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S);
                response
            }
            Self::Internal(error) => {
                let reference = Uuid::new_v4();
                let detail = format!(
                    "an error occurred.  please contact pydist support and quote reference {reference}"
                );
                failed(StatusCode::INTERNAL_SERVER_ERROR, detail, error, reference)
            }
        }
    }
}
