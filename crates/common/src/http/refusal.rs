//! Refuses what is not a valid HTTP request, before any route sees it.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};

use super::problem::Problem;

/// The answer to an invalid request: its status, and the detail for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(StatusCode, &'static str);

impl Refusal {
    /// For a connection that has to make room for others.
    pub(super) const SHED: Self = Self(
        StatusCode::REQUEST_TIMEOUT,
        "the request took too long to arrive while others were waiting",
    );

    /// What to answer after hyper ended a connection with an error. `status` is what hyper wanted to answer, `unread` what it did not accept as a request.
    pub(super) fn of(status: Option<StatusCode>, error: &hyper::Error, unread: &[u8]) -> Option<Self> {
        const TOO_LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        const URI_TOO_LONG: Refusal = Refusal(StatusCode::URI_TOO_LONG, "the URI is too long");
        Some(match status {
            Some(StatusCode::URI_TOO_LONG) => URI_TOO_LONG,
            // The buffer is full, and holds no complete line.
            Some(TOO_LARGE) if !unread.is_empty() && !unread.contains(&b'\n') => URI_TOO_LONG,
            Some(TOO_LARGE) => Self(TOO_LARGE, "the headers are too many or too large"),
            Some(status) => Self(status, "the request line or a header is malformed"),
            None if unread.is_empty() => return None,
            None if error.is_timeout() => {
                Self(StatusCode::REQUEST_TIMEOUT, "the headers took too long to arrive")
            }
            None if error.is_incomplete_message() => Self(StatusCode::BAD_REQUEST, "the headers broke off"),
            None if error.is_parse_version_h2() => {
                Self(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
            }
            None => return None,
        })
    }

    /// A request that [`refusals`] answers with this refusal.
    pub(super) fn into_request(self) -> Request {
        let mut request = Request::new(Body::empty());
        // The real method is not known.
        *request.method_mut() = Method::from_bytes(b"UNKNOWN").unwrap_or_default();
        request.extensions_mut().insert(self);
        request
    }
}

/// Answers every [`Refusal`]. As a router it can have the same layers as the other routes.
pub(super) fn refusals() -> Router {
    Router::new().fallback(async |Extension(refusal): Extension<Refusal>| refusal)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Problem::client(self.0, self.1).into_response()
    }
}

/// Refuses requests that hyper accepts although RFC 9112 forbids them.
pub(super) async fn reject_malformed(request: Request, next: Next) -> Response {
    match fault(request.version(), request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn fault(version: Version, headers: &HeaderMap) -> Option<Refusal> {
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let mut hosts = headers.get_all(HOST).iter();
    let bad_request = |detail| Refusal(StatusCode::BAD_REQUEST, detail);
    Some(match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => bad_request("the header Host is missing"),
        (Some(_), Some(_)) => bad_request("the header Host is there more than once"),
        (Some(host), None) if !is_host(host.as_bytes()) => bad_request("the header Host is malformed"),
        _ if !headers.get_all(TRANSFER_ENCODING).iter().all(is_chunked) => Refusal(
            StatusCode::NOT_IMPLEMENTED,
            "of the transfer codings chunked alone is understood",
        ),
        _ => return None,
    })
}

/// `uri-host [ ":" port ]`, or empty (RFC 9110, 7.2). The grammar allows a comma, but it means that a proxy has joined two Host headers.
fn is_host(host: &[u8]) -> bool {
    if host.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port = matches!(port, Some("" | ":")) || authority.port_u16().is_some();
    is_port && !host.contains(&b'@') && !host.contains(&b',')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn refused(version: Version, headers: &[(HeaderName, &'static str)]) -> Option<u16> {
        let headers = headers.iter().cloned();
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        fault(version, &headers.collect()).map(|Refusal(status, _)| status.as_u16())
    }

    #[test]
    fn a_request_has_one_host_that_is_one_and_an_old_one_may_have_none() {
        for host in [
            "x",
            "localhost:8777",
            "127.0.0.1:80",
            "[::1]:8777",
            "a-b.example",
            "x:",
            "",
        ] {
            assert_eq!(refused(Version::HTTP_11, &[(HOST, host)]), None, "{host:?}");
        }
        for host in [
            "a b/c",
            "a/b",
            "a b",
            "user@host",
            "a,b",
            "http://x",
            "x:y",
            "[::1",
            "a\"b",
            "x?y",
            "x#y",
        ] {
            assert_eq!(refused(Version::HTTP_11, &[(HOST, host)]), Some(400), "{host:?}");
            assert_eq!(refused(Version::HTTP_10, &[(HOST, host)]), Some(400), "{host:?}");
        }
        assert_eq!(refused(Version::HTTP_11, &[]), Some(400));
        assert_eq!(refused(Version::HTTP_10, &[]), None);
        assert_eq!(refused(Version::HTTP_11, &[(HOST, "a"), (HOST, "a")]), Some(400));
    }

    #[test]
    fn a_body_is_chunked_or_in_one_piece() {
        let coded = |coding| refused(Version::HTTP_11, &[(HOST, "x"), (TRANSFER_ENCODING, coding)]);
        assert_eq!((coded("chunked"), coded("Chunked")), (None, None));
        for unknown in ["gzip, chunked", "gzip", "chunked, chunked", "identity", ""] {
            assert_eq!(coded(unknown), Some(501), "{unknown:?}");
        }
    }
}
