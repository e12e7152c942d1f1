//! A reader of a JSON object in the body that collects faults, and never sends a number through a float.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
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
            Some(raw) => (read(raw), raw.clone()),
            None => (Err(FieldFault::missing()), self.object.clone()),
        };
        outcome
            .map_err(|fault| {
                self.items.push(ErrorItem::new(
                    vec![Location::Name("body"), Location::Name(name)],
                    fault,
                    input,
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
        if body.is_empty() {
            return Err(reject(vec![], FieldFault::missing(), RawValue::NULL.to_owned()));
        }
        let text = String::from_utf8_lossy(body);
        if !declares_json(headers) {
            return Err(not_declared(to_raw(&text)));
        }
        let object: Box<RawValue> = serde_json::from_slice(body).map_err(|error| not_json(&text, &error))?;
        if !object.get().starts_with('{') {
            return Err(reject(
                vec![],
                FieldFault::new("model_attributes_type", NOT_AN_OBJECT),
                object,
            ));
        }
        let fields = serde_json::from_str(object.get()).map_err(|error| not_json(&text, &error))?;
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

fn declares_json(headers: &HeaderMap) -> bool {
    let declared = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = declared
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

fn not_json(text: &str, error: &serde_json::Error) -> Problem {
    let expected = error.to_string();
    let expected = expected
        .rsplit_once(" at line ")
        .map_or(expected.as_str(), |(reason, _position)| reason);
    let fault =
        FieldFault::new("json_invalid", "JSON decode error").with_context(json!({ "error": expected }));
    let offset = Location::Offset(character_offset(text, error.line(), error.column()));
    let empty_object = RawValue::from_string("{}".to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned());
    reject(vec![offset], fault, empty_object)
}

/// Where the parser stopped, in characters from the start. Its lines and columns count from 1, its columns in bytes.
fn character_offset(text: &str, line: usize, column: usize) -> usize {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let stopped_at = line_start.saturating_add(column.saturating_sub(1));
    text.char_indices().take_while(|(at, _)| *at < stopped_at).count()
}

fn to_raw(text: &str) -> Box<RawValue> {
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
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
                r#"[{"type":"json_invalid","loc":["body",1],"msg":"JSON decode error","input":{},"ctx":{"error":"key must be a string"}}]"#
            )
        );
        let at_the_fault = refusal("application/json", "{\"ä\": 1,\n \"é\" x}").unwrap_or_default();
        assert!(at_the_fault.contains(r#""loc":["body",14]"#), "{at_the_fault}");
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
