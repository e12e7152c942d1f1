//! What is promised of every `X-Request-Id`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::request_id::RequestId;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Each line of `data` is a header. The id of the request has 1 to 128 characters of an alphabet that nothing reads as more than text, and is the
/// one header that an answer has.
///
/// # Panics
///
/// If that is not so.
pub fn request_id(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(10) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(HEADER, value);
        }
    }
    let id = RequestId::from_headers(&headers);
    let text = id.as_str();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-._~:/+=@".contains(character);
    assert!(
        (1..=128).contains(&text.len()) && text.chars().all(is_plain),
        "{text:?}"
    );
    id.add_to_headers(&mut headers);
    assert!(headers.get_all(HEADER).iter().eq([text]));
    assert_eq!(RequestId::from_headers(&headers), id);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("request_id", super::request_id);
    }
}
