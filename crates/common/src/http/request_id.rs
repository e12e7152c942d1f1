//! `X-Request-Id`: what a request is called in the events of all services that take part in answering it.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 128;

/// The id of a request; part of the context in which it is handled. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The id that the caller gave; a new one where it gave none, several, or one that could be mistaken in a log.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(HEADER).iter();
        let id = match (given.next(), given.next()) {
            (Some(id), None) => id.to_str().ok().filter(|id| is_sane(id)),
            _ => None,
        };
        Self(id.map_or_else(|| Uuid::new_v4().to_string().into(), Into::into))
    }

    /// As it is in a header.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Sets the header, in an answer or in a request that is made on the way to it.
    pub(super) fn add_to_headers(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(HEADER, value);
        }
    }
}

/// Visible ASCII without quotes and backslashes, and not too long.
fn is_sane(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'`' | b'\\');
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: &[&str]) -> RequestId {
        let values = given.iter().filter_map(|id| HeaderValue::from_str(id).ok());
        RequestId::of(&values.map(|value| (HEADER, value)).collect())
    }

    #[test]
    fn a_sane_id_is_taken() {
        for id in [
            "7",
            "5fa733ae-82b4-4ac0-8478-35ff30dae879",
            "a/b:c=d+e",
            &"x".repeat(128),
        ] {
            assert_eq!(id_of(&[id]).as_str(), id);
        }
    }

    #[test]
    fn none_several_or_nonsense_is_replaced_by_a_new_one() {
        let nonsense = [
            "",
            " ",
            "a b",
            "a\tb",
            "a\"b",
            "a'b",
            "a\\b",
            "é",
            &"x".repeat(129),
        ];
        for given in nonsense
            .iter()
            .map(std::slice::from_ref)
            .chain([&[] as &[&str], &["a", "b"]])
        {
            let id = id_of(given);
            assert!(Uuid::try_parse(id.as_str()).is_ok(), "{given:?} became {id:?}");
        }
    }
}
