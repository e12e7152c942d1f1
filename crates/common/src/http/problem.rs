//! Error answers in FastAPI's form.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::field::FieldFault;

/// When a client may try again after a `503`, in seconds.
const RETRY_AFTER_S: &str = "1";

/// One sentence on what went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detail {
    /// The sentence.
    detail: String,
}

/// Every fault of a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldFaults {
    /// One item per fault.
    detail: Vec<ErrorItem>,
}

/// What is wrong with one field or parameter.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = FieldFault)]
pub struct ErrorItem {
    /// The kind of fault, for programs.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Where the fault is: `body`, `query` or `header`, then the name of the field. If the body is not JSON: `body`, then the offset in characters.
    loc: Vec<Location>,
    /// What is wrong, for people.
    msg: String,
    /// The offending value, as received.
    #[schema(value_type = Value)]
    input: Box<RawValue>,
    /// The values in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    ctx: Option<Value>,
}

/// A step on the way to a fault.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Place)]
pub enum Location {
    /// The part of the request, or the name of a field.
    Name(&'static str),
    /// An offset in the body, in characters.
    #[schema(value_type = u64)]
    Offset(usize),
}

impl ErrorItem {
    /// A fault at `loc`, in the value `input`.
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
    /// `503` with `Retry-After`: a dependency is away. The sentence is for the client, the error for the log.
    Unavailable(String, anyhow::Error),
    /// `500` with a reference: an internal error, for the log.
    Internal(anyhow::Error),
}

/// The cause of a `5xx`, for the log. It travels with the answer to the place where it is logged once.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: Arc<anyhow::Error>,
    pub(super) reference: Uuid,
}

impl Problem {
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

fn failed(status: StatusCode, detail: String, error: anyhow::Error, reference: Uuid) -> Response {
    let error = Arc::new(error);
    let failure = Extension(Failure { error, reference });
    (status, failure, Json(Detail { detail })).into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(detail) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(FieldFaults { detail })).into_response()
            }
            Self::Client(status, detail) => (status, Json(Detail { detail })).into_response(),
            Self::Unavailable(detail, error) => {
                let answer = failed(StatusCode::SERVICE_UNAVAILABLE, detail, error, Uuid::new_v4());
                ([(RETRY_AFTER, RETRY_AFTER_S)], answer).into_response()
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
