//! `X-Request-Id`: the id under which all services log what they do for one request.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 128;

/// The id of a request, kept in the context in which the request is handled. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// The id that the caller sent. A new one if it sent none, several, or one that is not of the alphabet.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(HEADER).iter();
        let id = match (given.next(), given.next()) {
            (Some(id), None) => id.to_str().ok().filter(|id| is_of_alphabet(id)),
            _ => None,
        };
        Self(id.map_or_else(|| Uuid::new_v4().to_string().into(), Into::into))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Sets the header of an answer, or of a request to another service.
    pub(crate) fn add_to_headers(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.0) {
            headers.insert(HEADER, value);
        }
    }
}

/// Letters, digits and what the ids of other systems have besides, and not too long: nothing that a shell, a page or a log would read as more
/// than text.
fn is_of_alphabet(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(&byte);
    (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: &[&str]) -> RequestId {
        let values = given.iter().filter_map(|id| HeaderValue::from_str(id).ok());
        RequestId::from_headers(&values.map(|value| (HEADER, value)).collect())
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
        for given in [
            &[] as &[&str],
            &["a", "b"],
            &[""],
            &[" "],
            &["a b"],
            &["a\tb"],
            &["a\"b"],
            &["a'b"],
            &["a\\b"],
            &["<script>"],
            &["$(id)"],
            &["a;b"],
            &["é"],
            &[&"x".repeat(129)],
        ] {
            let id = id_of(given);
            assert!(Uuid::try_parse(id.as_str()).is_ok(), "{given:?} became {id:?}");
        }
    }
}
