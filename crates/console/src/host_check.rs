//! Refuses requests that a page of another site makes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use common::http::Problem;
use url::Url;

/// The name by which services reach this one.
pub(crate) type OwnName = Option<Arc<str>>;

/// Refuses a request for a host that this is not: a page of another site may have bound its own name to this address, so that its browser
/// takes us for that site. And a request that changes something, if a page of another host sends it.
pub(crate) async fn refuse_other_sites(
    State(own_name): State<OwnName>,
    request: Request,
    next: Next,
) -> Response {
    match fault(request.method(), request.headers(), own_name.as_deref()) {
        Some((status, detail)) => Problem::client(status, detail).into_response(),
        None => next.run(request).await,
    }
}

fn fault(method: &Method, headers: &HeaderMap, own_name: Option<&str>) -> Option<(StatusCode, &'static str)> {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let host = host.and_then(|host| Authority::try_from(host).ok());
    let Some(host) = host.filter(|host| is_ours(host.host(), own_name)) else {
        return Some((
            StatusCode::MISDIRECTED_REQUEST,
            "this host is not served here: ask for localhost",
        ));
    };
    let is_safe = [Method::GET, Method::HEAD].contains(method);
    let is_foreign = |origin: &HeaderValue| !is_same(origin, &host);
    (!is_safe && headers.get_all(ORIGIN).iter().any(is_foreign)).then_some((
        StatusCode::FORBIDDEN,
        "this is refused from a page of another host",
    ))
}

fn is_ours(host: &str, own_name: Option<&str>) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || own_name.is_some_and(|name| host.eq_ignore_ascii_case(name))
}

/// Whether an origin is this host, with its port.
fn is_same(origin: &HeaderValue, host: &Authority) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    origin.is_some_and(|origin| {
        let port = host.port_u16().or_else(|| match origin.scheme() {
            "https" => Some(443),
            _ => Some(80),
        });
        origin
            .host_str()
            .is_some_and(|name| name.eq_ignore_ascii_case(host.host()))
            && origin.port_or_known_default() == port
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refused(method: &Method, host: Option<&str>, origin: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, host), (ORIGIN, origin)] {
            if let Some(value) = value {
                headers.append(name, value.parse().unwrap());
            }
        }
        fault(method, &headers, Some("console")).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_host_is_an_address_or_localhost_or_the_name_that_services_use() {
        for host in [
            "localhost",
            "LOCALHOST:8779",
            "127.0.0.1:8779",
            "192.168.1.7",
            "[::1]:8779",
            "console:8080",
        ] {
            assert_eq!(refused(&Method::GET, Some(host), None), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8779",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "console.evil.example",
            "",
        ] {
            assert_eq!(refused(&Method::GET, Some(host), None), Some(421), "{host}");
        }
        assert_eq!(refused(&Method::GET, None, None), Some(421));
    }

    #[test]
    fn what_changes_something_comes_from_this_host_or_from_no_page() {
        let put = |origin| refused(&Method::PUT, Some("localhost:8779"), Some(origin));
        assert_eq!(refused(&Method::PUT, Some("localhost:8779"), None), None);
        assert_eq!(put("http://localhost:8779"), None);
        for origin in [
            "http://evil.example",
            "http://localhost:8778",
            "http://localhost",
            "http://127.0.0.1:8779",
            "null",
            "",
        ] {
            assert_eq!(put(origin), Some(403), "{origin}");
        }
        let https = refused(&Method::PUT, Some("localhost"), Some("https://localhost"));
        assert_eq!(https, None);
        let get = refused(&Method::GET, Some("localhost"), Some("http://evil.example"));
        assert_eq!(get, None);
    }
}
