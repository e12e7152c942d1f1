//! Reads the body of a request as a JSON object. Numbers keep their literal digits: they never become floats.

mod json_fault;

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use axum::body::{HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::echo;
use super::field::FieldFault;
use super::fields::BodyFields;
use super::problem::{ErrorItem, Location, Problem};
use super::request_body::waits_for_continue;

/// A larger body, in bytes, is refused with `413`.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// A body that takes longer to arrive is refused with `408`.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const NOT_AN_OBJECT: &str = "Input should be a valid dictionary or object to extract fields from";

impl<S: Sync> FromRequest<S> for BodyFields {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(too_large());
        }
        // A client that waits for `100 Continue` gets it when the body is read. It is refused before, and does not send the body in vain.
        let is_unsent = waits_for_continue(&head.headers) && !body.is_end_stream();
        if is_unsent && !declares_json(&head.headers) {
            return Err(not_declared(RawValue::NULL.to_owned()));
        }
        let body = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES))
            .await
            .map_err(|_| Problem::client(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive"))?
            .map_err(|error| unreadable(&error))?;
        parse(&head.headers, &body)
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<BodyFields, Problem> {
    // Some editors put a byte order mark before a text. CPython skips it, too.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    if body.is_empty() {
        return Err(reject(None, FieldFault::missing(), RawValue::NULL.to_owned()));
    }
    if !declares_json(headers) {
        return Err(not_declared(echo::json(&String::from_utf8_lossy(body))));
    }
    let object: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    if !object.get().starts_with('{') {
        let fault = FieldFault::new("model_attributes_type", NOT_AN_OBJECT);
        return Err(reject(None, fault, echo::readable(object)));
    }
    let members: HashMap<MemberName, Box<RawValue>> =
        serde_json::from_str(object.get()).map_err(|error| not_json(body, &error))?;
    let with_name = |(MemberName(name), value)| Some((name?, value));
    Ok(BodyFields {
        part: "body",
        whole: object.to_owned(),
        values: members.into_iter().filter_map(with_name).collect(),
        echo: echo::readable,
        items: Vec::new(),
    })
}

/// The name of a member of an object. JSON allows names that are not text, such as one half of a surrogate pair: those are `None`.
#[derive(PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "&RawValue")]
struct MemberName(Option<String>);

impl From<&RawValue> for MemberName {
    fn from(literal: &RawValue) -> Self {
        Self(serde_json::from_str(literal.get()).ok())
    }
}

fn unreadable(error: &axum::Error) -> Problem {
    match error.source() {
        Some(source) if source.is::<LengthLimitError>() => too_large(),
        _ => Problem::client(StatusCode::BAD_REQUEST, "the body could not be read"),
    }
}

fn too_large() -> Problem {
    let detail = format!("the body is larger than {MAX_BODY_BYTES} bytes");
    Problem::client(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn not_declared(input: Box<RawValue>) -> Problem {
    let msg = format!("{NOT_AN_OBJECT} (is the header 'content-type: application/json' missing?)");
    reject(None, FieldFault::new("model_attributes_type", msg), input)
}

/// Whether every `content-type` header says JSON, and there is one. With two headers, programs differ in which one they use.
fn declares_json(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_TYPE) && headers.get_all(CONTENT_TYPE).iter().all(is_json)
}

fn is_json(content_type: &HeaderValue) -> bool {
    let essence = content_type.to_str().unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn reject(offset: Option<usize>, fault: FieldFault, input: Box<RawValue>) -> Problem {
    let mut loc = vec![Location::Name("body")];
    loc.extend(offset.map(Location::Offset));
    Problem::Invalid(vec![ErrorItem::new(loc, fault, input)])
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Problem {
    let (at, reason) = match std::str::from_utf8(body) {
        Ok(text) => match json_fault::find(text) {
            Some((at, message)) => (at, message.to_owned()),
            None => (0, error.to_string()),
        },
        Err(_) => {
            let readable = body.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            (readable.chars().count(), "Invalid UTF-8".to_owned())
        }
    };
    let fault = FieldFault::new("json_invalid", "JSON decode error").with_context(json!({ "error": reason }));
    reject(Some(at), fault, echo::json(&json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content_type(lines: &[&'static str]) -> HeaderMap {
        let header = |line: &&'static str| (CONTENT_TYPE, HeaderValue::from_static(line));
        lines.iter().map(header).collect()
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused_with_the_place_of_the_fault_or_with_itself() {
        const JSON: &str = "application/json";
        for (declared, body, refused) in [
            (
                JSON,
                "{bad".as_bytes(),
                r#"[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting property name enclosed in double quotes"}}]"#,
            ),
            // Offsets count characters.
            (
                JSON,
                "{\"ä\": 1,\n \"é\" x}".as_bytes(),
                r#"[{"type":"json_invalid","loc":["body",14],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting ':' delimiter"}}]"#,
            ),
            // A body in another encoding.
            (
                JSON,
                b"{\"\xc3\xa4\":\"\xff\"}",
                r#"[{"type":"json_invalid","loc":["body",6],"msg":"JSON decode error","input":{},"ctx":{"error":"Invalid UTF-8"}}]"#,
            ),
            (
                "application/json; charset=utf-8",
                b"[1.50]",
                r#"[{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","input":[1.50]}]"#,
            ),
            (
                "application/x-www-form-urlencoded",
                b"{}",
                r#"[{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from (is the header 'content-type: application/json' missing?)","input":"{}"}]"#,
            ),
        ] {
            let Err(Problem::Invalid(items)) = parse(&content_type(&[declared]), body) else {
                panic!("not refused: {body:?}");
            };
            assert_eq!(serde_json::to_string(&items).unwrap_or_default(), refused);
        }
    }

    fn field(headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let mut body = parse(headers, body).ok()?;
        body.required("a", |raw| Ok(raw.get().to_owned()))
    }

    #[test]
    fn names_and_values_that_are_no_text_are_no_matter_in_fields_that_nobody_asks_for() {
        let headers = content_type(&["application/json"]);
        for body in [
            r#"{"\ud800":1,"a":2}"#,
            r#"{"b":"\udfff","a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":2,"b":1e999999}"#,
            "\u{feff}{\"a\":2}",
        ] {
            assert_eq!(field(&headers, body.as_bytes()).as_deref(), Some("2"), "{body}");
        }
    }

    #[test]
    fn every_line_of_the_content_type_has_to_say_json() {
        for (lines, is_read) in [
            (&["application/json"] as &[_], true),
            (&["Application/Problem+JSON; charset=utf-8"], true),
            (&["application/json", "application/json"], true),
            (&["application/json", "text/plain"], false),
            (&["text/plain", "application/json"], false),
            (&[], false),
        ] {
            let read = field(&content_type(lines), br#"{"a":2}"#);
            assert_eq!(read.is_some(), is_read, "{lines:?}");
        }
    }

    #[test]
    fn every_faulty_field_is_in_one_answer_in_the_order_asked() -> Result<(), Box<dyn std::error::Error>> {
        let headers = content_type(&["application/json"]);
        let mut body = parse(&headers, br#"{"b": 1e5}"#).map_err(|_| "refused")?;
        assert_eq!(body.required("a", |_| Ok(())), None);
        let refuse = |raw: &RawValue| Err::<(), _>(FieldFault::new("decimal_parsing", raw.get()));
        assert_eq!(body.required("b", refuse), None);
        let Problem::Invalid(items) = body.rejection() else {
            return Err("not a 422".into());
        };
        assert_eq!(
            serde_json::to_string(&items)?,
            r#"[{"type":"missing","loc":["body","a"],"msg":"Field required","input":{"b": 1e5}},{"type":"decimal_parsing","loc":["body","b"],"msg":"1e5","input":1e5}]"#
        );
        Ok(())
    }
}
