//! A reader of a JSON object in the body that collects faults, and never sends a number through a float.

mod echo;
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

use super::arriving::waits_for_continue;
use super::field::FieldFault;
use super::problem::{ErrorItem, Location, Problem};

/// Bodies of this many bytes are read; a longer one is refused with `413`.
const BODY_LIMIT: usize = 16 * 1024;

/// A client that takes longer to send its body is refused with `408`.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The fields of a JSON object, each as its literal text. Each getter answers `None` for a faulty one; [`BodyFields::rejection`] then
/// names them all, in the order in which they were asked for. Of a field that is given twice the last one counts; unknown ones are ignored.
#[derive(Debug)]
pub struct BodyFields {
    object: Box<RawValue>,
    fields: HashMap<String, Box<RawValue>>,
    items: Vec<ErrorItem>,
}

impl BodyFields {
    /// A field that must be there; `read` gets its literal JSON text.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&RawValue) -> Result<T, FieldFault>,
    ) -> Option<T> {
        let (outcome, input) = match self.fields.get(name) {
            Some(raw) => (read(raw), raw),
            None => (Err(FieldFault::missing()), &self.object),
        };
        outcome
            .map_err(|fault| {
                self.items.push(ErrorItem::new(
                    vec![Location::Name("body"), Location::Name(name)],
                    fault,
                    echo::readable(input),
                ))
            })
            .ok()
    }

    /// The answer that names every fault met so far.
    #[must_use]
    pub fn rejection(self) -> Problem {
        Problem::invalid(self.items)
    }

    fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        // A byte order mark, which some editors put before a text. CPython passes over it, too.
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        if body.is_empty() {
            return Err(reject(vec![], FieldFault::missing(), RawValue::NULL.to_owned()));
        }
        let text = String::from_utf8_lossy(body);
        if !declares_json(headers) {
            return Err(not_declared(to_raw(&text)));
        }
        let object: Box<RawValue> = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
        if !object.get().starts_with('{') {
            return Err(reject(
                vec![],
                FieldFault::new("model_attributes_type", NOT_AN_OBJECT),
                echo::readable(&object),
            ));
        }
        let Fields(fields) = serde_json::from_str(object.get()).map_err(|error| not_json(body, &error))?;
        Ok(Self {
            object,
            fields,
            items: Vec::new(),
        })
    }
}

impl<S: Sync> FromRequest<S> for BodyFields {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if let Some(refusal) = refuse_unread(&parts.headers, &body) {
            return Err(refusal);
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await;
        let Ok(body) = read else {
            return Err(Problem::client(
                StatusCode::REQUEST_TIMEOUT,
                "the body took too long to arrive",
            ));
        };
        let body = body.map_err(|error| unreadable(&error))?;
        Self::parse(&parts.headers, &body)
    }
}

const NOT_AN_OBJECT: &str = "Input should be a valid dictionary or object to extract fields from";

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
        format!("the body is larger than {BODY_LIMIT} bytes"),
    )
}

/// What the headers alone tell. A client that waits for `100 Continue` gets it when the body is read, and would send the body for nothing.
fn refuse_unread(headers: &HeaderMap, body: &Body) -> Option<Problem> {
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Some(too_large());
    }
    let is_refused = waits_for_continue(headers) && !body.is_end_stream() && !declares_json(headers);
    is_refused.then(|| not_declared(RawValue::NULL.to_owned()))
}

fn not_declared(input: Box<RawValue>) -> Problem {
    let msg = format!("{NOT_AN_OBJECT} (is the header 'content-type: application/json' missing?)");
    reject(vec![], FieldFault::new("model_attributes_type", msg), input)
}

/// The members of an object. A name that is no text, as one half of a surrogate pair, is JSON, and the name of no field.
struct Fields(HashMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Fields, A::Error> {
        let mut fields = HashMap::new();
        while let Some((name, value)) = members.next_entry::<&RawValue, Box<RawValue>>()? {
            if let Ok(name) = serde_json::from_str(name.get()) {
                fields.insert(name, value);
            }
        }
        Ok(Fields(fields))
    }
}

/// Whether the header is there and says so. Where it is there twice, readers differ in which one they go by: then both have to.
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
    Problem::invalid(vec![ErrorItem::new(loc, fault, input)])
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
        match BodyFields::parse(&headers, body.as_bytes()) {
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
        let Err(Problem::Invalid(items)) = BodyFields::parse(&headers, b"{\"\xc3\xa4\":\"\xff\"}") else {
            panic!("not refused");
        };
        let refused = serde_json::to_string(&items).unwrap_or_default();
        assert!(
            refused.contains(r#""type":"json_invalid","loc":["body",6]"#),
            "{refused}"
        );
    }

    fn field(headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let mut body = BodyFields::parse(headers, body).ok()?;
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
        let mut body = BodyFields::parse(&headers, br#"{"b": 1e5}"#).map_err(|_| "refused")?;
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
