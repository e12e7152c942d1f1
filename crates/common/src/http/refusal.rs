//! Refuses what is not a valid HTTP request, before any route sees it.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

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

    /// What to answer after hyper ended a connection. `status` is what hyper wanted to answer, `unread` what it did not accept as a request.
    pub(super) fn of(
        status: Option<StatusCode>,
        error: Option<&hyper::Error>,
        unread: &[u8],
    ) -> Option<Self> {
        const TOO_LARGE: StatusCode = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let error = error?;
        match status {
            Some(StatusCode::URI_TOO_LONG) => Some(Self::uri_too_long()),
            // The buffer is full, and holds no complete line.
            Some(TOO_LARGE) if !unread.is_empty() && !unread.contains(&b'\n') => Some(Self::uri_too_long()),
            Some(TOO_LARGE) => Some(Self(TOO_LARGE, "the headers are too many or too large")),
            Some(status) => Some(Self(status, "the request line or a header is malformed")),
            None if unread.is_empty() => None,
            None if error.is_timeout() => Some(Self(
                StatusCode::REQUEST_TIMEOUT,
                "the headers took too long to arrive",
            )),
            None if error.is_incomplete_message() => {
                Some(Self(StatusCode::BAD_REQUEST, "the headers broke off"))
            }
            None if error.is_parse_version_h2() => Some(Self(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "HTTP/1.1 is spoken here",
            )),
            None => None,
        }
    }

    fn uri_too_long() -> Self {
        Self(StatusCode::URI_TOO_LONG, "the URI is too long")
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
    Router::new().fallback(async |request: Request| {
        let refusal = request.extensions().get::<Refusal>().cloned();
        let Refusal(status, detail) = refusal.unwrap_or(Refusal(StatusCode::BAD_REQUEST, "Bad Request"));
        Problem::client(status, detail)
    })
}

/// Refuses requests that hyper accepts although RFC 9112 forbids them.
pub(super) async fn reject_malformed(request: Request, next: Next) -> Response {
    match fault(request.version(), request.headers()) {
        Some(Refusal(status, detail)) => Problem::client(status, detail).into_response(),
        None => next.run(request).await,
    }
}

fn fault(version: Version, headers: &HeaderMap) -> Option<Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => "the header Host is missing",
        (Some(_), Some(_)) => "the header Host is there more than once",
        (Some(host), None) if !is_host(host.as_bytes()) => "the header Host is malformed",
        _ => {
            let codings = headers.get_all(TRANSFER_ENCODING).iter();
            let is_chunked =
                |coding: &axum::http::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            let mut unknown = codings.skip_while(|coding| is_chunked(coding));
            return unknown.next().map(|_| {
                Refusal(
                    StatusCode::NOT_IMPLEMENTED,
                    "of the transfer codings chunked alone is understood",
                )
            });
        }
    };
    Some(Refusal(StatusCode::BAD_REQUEST, detail))
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
    use axum::http::HeaderValue;

    use super::*;

    fn refused(version: Version, headers: &[(axum::http::HeaderName, &'static str)]) -> Option<u16> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        fault(version, &map).map(|Refusal(status, _)| status.as_u16())
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
