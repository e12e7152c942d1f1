//! The error bodies of `common::http`, as the OpenAPI document shows them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One sentence on what went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detail {
    /// The sentence.
    detail: String,
}

/// Every faulty parameter of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"detail": [{
    "type": "missing",
    "loc": ["query", "currency"],
    "msg": "Field required",
    "input": null
}]}))]
pub struct FieldFaults {
    /// One item per faulty parameter.
    detail: Vec<FieldFault>,
}

/// What is wrong with one parameter.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldFault {
    /// What kind of fault it is: for programs.
    r#type: String,
    /// Where it is: `query` and the name of the parameter.
    loc: Vec<String>,
    /// What is wrong: for people.
    msg: String,
    /// What came.
    input: Value,
}
