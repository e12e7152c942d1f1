//! A reader of the query string that collects faults.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde_json::value::{RawValue, to_raw_value};

use super::field::FieldFault;
use super::problem::{ErrorItem, Location, Problem};

/// The parameters of a query string. Each getter answers `None` for a faulty one; [`QueryFields::rejection`] then names them all.
/// Of a parameter that is given twice the last one counts, as in FastAPI; unknown ones are ignored.
#[derive(Debug)]
pub struct QueryFields {
    pairs: Vec<(String, String)>,
    items: Vec<ErrorItem>,
}

impl QueryFields {
    /// A parameter that must be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, FieldFault>,
    ) -> Option<T> {
        match self.optional(name, read) {
            Some(None) => {
                self.fault(name, FieldFault::missing(), RawValue::NULL.to_owned());
                None
            }
            found => found.flatten(),
        }
    }

    /// A parameter that may be absent: `Some(None)` then, and `None` when it is faulty.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, FieldFault>,
    ) -> Option<Option<T>> {
        let Some(text) = self
            .pairs
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, text)| text.clone())
        else {
            return Some(None);
        };
        match read(&text) {
            Ok(value) => Some(Some(value)),
            Err(fault) => {
                let input = to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned());
                self.fault(name, fault, input);
                None
            }
        }
    }

    /// The answer that names every fault met so far.
    #[must_use]
    pub fn rejection(self) -> Problem {
        Problem::invalid(self.items)
    }

    fn fault(&mut self, name: &'static str, fault: FieldFault, input: Box<RawValue>) {
        self.items.push(ErrorItem::new(
            vec![Location::Name("query"), Location::Name(name)],
            fault,
            input,
        ));
    }
}

impl<S: Sync> FromRequestParts<S> for QueryFields {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let pairs = Query::try_from_uri(&parts.uri)
            .map(|Query(pairs)| pairs)
            .unwrap_or_default();
        Ok(Self {
            pairs,
            items: Vec::new(),
        })
    }
}
