//! Reads the fields of a request one by one, and collects the faults of all of them for one answer.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;

use super::echo;
use super::field::FieldFault;
use super::problem::{ErrorItem, Location, Problem};

/// The fields of one part of a request: [`BodyFields`] or [`QueryFields`]. Each getter returns `None` if its field is faulty.
/// [`Fields::rejection`] then names all faults, in the order in which the fields were asked for. If a field is given twice, the last one
/// counts, as in FastAPI. Unknown fields are ignored.
#[derive(Debug)]
pub struct Fields<R: ?Sized> {
    /// `body` or `query`.
    pub(super) part: &'static str,
    /// The input that an answer shows for a missing field.
    pub(super) whole: Box<RawValue>,
    pub(super) values: Vec<(String, Box<R>)>,
    /// How an answer shows a faulty value.
    pub(super) echo: fn(&R) -> Box<RawValue>,
    pub(super) items: Vec<ErrorItem>,
}

/// The fields of a JSON object in the body, each as its literal JSON text.
pub type BodyFields = Fields<RawValue>;

/// The parameters of a query string, decoded; and headers, which are asked for by [`QueryFields::optional_header`].
pub type QueryFields = Fields<str>;

impl<R: ?Sized> Fields<R> {
    /// A required field, parsed by `read`.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&R) -> Result<T, FieldFault>,
    ) -> Option<T> {
        let value = self.optional(name, read)?;
        if value.is_none() {
            self.add_fault(
                self.part,
                name,
                FieldFault::missing(),
                echo::readable(&self.whole),
            );
        }
        value
    }

    /// An optional field: `Some(None)` if it is absent, and `None` if it is faulty.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&R) -> Result<T, FieldFault>,
    ) -> Option<Option<T>> {
        let Some((_, value)) = self.values.iter().rfind(|(given, _)| given == name) else {
            return Some(None);
        };
        match read(value) {
            Ok(value) => Some(Some(value)),
            Err(fault) => {
                let input = (self.echo)(value);
                self.add_fault(self.part, name, fault, input);
                None
            }
        }
    }

    /// The answer that names all faults found so far.
    #[must_use]
    pub fn rejection(self) -> Problem {
        Problem::Invalid(self.items)
    }

    fn add_fault(&mut self, part: &'static str, name: &'static str, fault: FieldFault, input: Box<RawValue>) {
        let loc = vec![Location::Name(part), Location::Name(name)];
        self.items.push(ErrorItem::new(loc, fault, input));
    }
}

impl QueryFields {
    /// An optional header of the same request, answered as [`Fields::optional`] answers. A header on several lines is one value, their values
    /// joined by commas, as HTTP has it. `name` is in lower case.
    pub fn optional_header<T>(
        &mut self,
        name: &'static str,
        headers: &HeaderMap,
        read: impl FnOnce(&str) -> Result<T, FieldFault>,
    ) -> Option<Option<T>> {
        // As Latin-1, which has a character for each byte.
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        let lines: Vec<String> = headers.get_all(name).iter().map(text).collect();
        if lines.is_empty() {
            return Some(None);
        }
        let value = lines.join(", ");
        match read(&value) {
            Ok(value) => Some(Some(value)),
            Err(fault) => {
                self.add_fault("header", name, fault, echo::json(&value));
                None
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for QueryFields {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self {
            part: "query",
            whole: RawValue::NULL.to_owned(),
            values: Query::try_from_uri(&parts.uri)
                .map(|Query(pairs)| pairs)
                .unwrap_or_default(),
            echo: echo::json,
            items: Vec::new(),
        })
    }
}
