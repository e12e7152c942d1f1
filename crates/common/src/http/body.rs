//! Reads the body of a request as a JSON object. Numbers keep their literal digits: they never become floats.

mod json_fault;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

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
        let (parts, body) = request.into_parts();
        if let Some(refusal) = refuse_unread(&parts.headers, &body) {
            return Err(refusal);
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await;
        let Ok(body) = read else {
            return Err(Problem::client(
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long to arrive",
            ));
        };
        let body = body.map_err(|error| unreadable(&error))?;
        parse(&parts.headers, &body)
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<BodyFields, Problem> {
    // Some editors put a byte order mark before a text. CPython skips it, too.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    if body.is_empty() {
        return Err(reject(vec![], FieldFault::missing(), RawValue::NULL.to_owned()));
    }
    if !declares_json(headers) {
        return Err(not_declared(to_raw(&String::from_utf8_lossy(body))));
    }
    let object: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    if !object.get().starts_with('{') {
        let fault = FieldFault::new("model_attributes_type", NOT_AN_OBJECT);
        return Err(reject(vec![], fault, echo::readable(object)));
    }
    let Members(values) = serde_json::from_str(object.get()).map_err(|error| not_json(body, &error))?;
    Ok(BodyFields {
        part: "body",
        whole: object.to_owned(),
        values,
        echo: echo::readable,
        items: Vec::new(),
    })
}

fn unreadable(error: &axum::Error) -> Problem {
    let over_limit = std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    if over_limit {
        too_large()
    } else {
        Problem::client(StatusCode::BAD_REQUEST, "the body could not be read")
    }
}

fn too_large() -> Problem {
    Problem::client(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than {MAX_BODY_BYTES} bytes"),
    )
}

/// Refuses a request by its headers alone. A client that waits for `100 Continue` gets it when the body is read, so it is refused before, and
/// does not send the body in vain.
fn refuse_unread(headers: &HeaderMap, body: &Body) -> Option<Problem> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Some(too_large());
    }
    let is_refused = waits_for_continue(headers) && !body.is_end_stream() && !declares_json(headers);
    is_refused.then(|| not_declared(RawValue::NULL.to_owned()))
}

fn not_declared(input: Box<RawValue>) -> Problem {
    let msg = format!("{NOT_AN_OBJECT} (is the header 'content-type: application/json' missing?)");
    reject(vec![], FieldFault::new("model_attributes_type", msg), input)
}

/// The members of an object. JSON allows names that are not text, such as one half of a surrogate pair: those are ignored.
struct Members(HashMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
        let mut fields = HashMap::new();
        while let Some((name, value)) = members.next_entry::<&RawValue, Box<RawValue>>()? {
            if let Ok(name) = serde_json::from_str(name.get()) {
                fields.insert(name, value);
            }
        }
        Ok(Members(fields))
    }
}

/// Whether every `content-type` header says JSON, and there is one. With two headers, programs differ in which one they use.
fn declares_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter().peekable();
    lines.peek().is_some() && lines.all(|line| line.to_str().is_ok_and(is_json))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn reject(below_body: Vec<Location>, fault: FieldFault, input: Box<RawValue>) -> Problem {
    let mut loc = vec![Location::Name("body")];
    loc.extend(below_body);
    Problem::Invalid(vec![ErrorItem::new(loc, fault, input)])
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Problem {
    let (at, reason) = match std::str::from_utf8(body) {
        Ok(text) => match json_fault::find(text) {
            Some(fault) => (fault.at, fault.message.to_owned()),
            None => (0, error.to_string()),
        },
        Err(_) => {
            let readable = body.utf8_chunks().next().map(|chunk| chunk.valid());
            (
                readable.unwrap_or_default().chars().count(),
                "Invalid UTF-8".to_owned(),
            )
        }
    };
    let fault = FieldFault::new("json_invalid", "JSON decode error").with_context(json!({ "error": reason }));
    let empty_object = RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned());
    reject(vec![Location::Offset(at)], fault, empty_object)
}

fn to_raw(text: &str) -> Box<RawValue> {
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn refusal(content_type: &str, body: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().ok()?);
        match parse(&headers, body.as_bytes()) {
            Err(Problem::Invalid(items)) => serde_json::to_string(&items).ok(),
            _ => None,
        }
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_at_the_character_of_the_fault() {
        assert_eq!(
            refusal("application/json", "{bad").as_deref(),
            Some(
                r#"[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting property name enclosed in double quotes"}}]"#
            )
        );
        let at_the_fault = refusal("application/json", "{\"ä\": 1,\n \"é\" x}").unwrap_or_default();
        assert!(at_the_fault.contains(r#""loc":["body",14]"#), "{at_the_fault}");
    }

    #[test]
    fn a_body_in_another_encoding_is_refused_where_it_cannot_be_read() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let Err(Problem::Invalid(items)) = parse(&headers, b"{\"\xc3\xa4\":\"\xff\"}") else {
            panic!("not refused");
        };
        let refused = serde_json::to_string(&items).unwrap_or_default();
        assert!(
            refused.contains(r#""type":"json_invalid","loc":["body",6]"#),
            "{refused}"
        );
    }

    fn field(headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let mut body = parse(headers, body).ok()?;
        body.required("a", |raw| Ok(raw.get().to_owned()))
    }

    #[test]
    fn names_and_values_that_are_no_text_are_no_matter_in_fields_that_nobody_asks_for() {
        let headers: HeaderMap = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))]
            .into_iter()
            .collect();
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
            let values = lines
                .iter()
                .map(|line| (CONTENT_TYPE, HeaderValue::from_static(line)));
            let headers: HeaderMap = values.collect();
            assert_eq!(field(&headers, br#"{"a":2}"#).is_some(), is_read, "{lines:?}");
        }
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_with_itself_as_input() {
        assert_eq!(
            refusal("application/json; charset=utf-8", "[1.50]").as_deref(),
            Some(
                r#"[{"type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from","input":[1.50]}]"#
            )
        );
    }

    #[test]
    fn a_body_without_its_content_type_is_refused_and_the_header_named() {
        let refused = refusal("application/x-www-form-urlencoded", "{}").unwrap_or_default();
        assert!(
            refused.contains("content-type: application/json") && refused.contains(r#""input":"{}""#),
            "{refused}"
        );
    }

    #[test]
    fn every_faulty_field_is_in_one_answer_in_the_order_asked() -> Result<(), Box<dyn std::error::Error>> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse()?);
        let mut body = parse(&headers, br#"{"b": 1e5}"#).map_err(|_| "refused")?;
        assert_eq!(body.required("a", |_| Ok(())), None);
        assert_eq!(
            body.required("b", |raw| Err::<(), _>(FieldFault::new(
                "decimal_parsing",
                raw.get()
            ))),
            None
        );
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
