//! The error bodies of this module, as OpenAPI documents show them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

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
    detail: Vec<FieldFault>,
}

/// What is wrong with one field or parameter.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldFault {
    /// What kind of fault it is: for programs.
    r#type: String,
    /// Where it is: `body` or `query`, then the name of the field; where the body is not JSON, the offset of the fault in characters.
    loc: Vec<Place>,
    /// What is wrong: for people.
    msg: String,
    /// What came.
    input: Value,
    /// The values behind the message.
    #[schema(required = false)]
    ctx: Option<Value>,
}

/// A step on the way to a fault.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a schema; the answers are made of `ErrorItem`")]
enum Place {
    Name(String),
    Offset(u64),
}
