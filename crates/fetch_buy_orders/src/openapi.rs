//! The error bodies of `common::http`, as the OpenAPI document shows them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One sentence on what went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    /// The sentence.
    detail: String,
}

/// Every faulty parameter of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"detail": [{
    "type": "less_than_equal",
    "loc": ["query", "page_size"],
    "msg": "Input should be less than or equal to 1000",
    "input": "1001",
    "ctx": {"le": 1000}
}]}))]
pub(crate) struct FieldFaults {
    /// One item per faulty parameter.
    detail: Vec<FieldFault>,
}

/// What is wrong with one parameter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldFault {
    /// What kind of fault it is: for programs.
    r#type: String,
    /// Where it is: `query` and the name of the parameter.
    loc: Vec<String>,
    /// What is wrong: for people.
    msg: String,
    /// What came.
    input: Value,
    /// The values behind the message.
    #[schema(required = false)]
    ctx: Option<Value>,
}
