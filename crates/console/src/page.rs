//! The page: files that are part of the binary.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;

use crate::operations;

/// The page loads what comes with it, asks this service, and nothing else. No other site may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The path of a file, its type and its content.
macro_rules! file {
    ($name:literal, $kind:expr) => {
        (
            concat!("/", $name),
            $kind,
            include_str!(concat!("../page/", $name)),
        )
    };
}

const FILES: [(&str, &str, &str); 18] = [
    ("/", HTML, include_str!("../page/index.html")),
    file!("console.css", CSS),
    file!("uPlot.min.css", CSS),
    file!("console.js", JAVASCRIPT),
    file!("book.js", JAVASCRIPT),
    file!("dom.js", JAVASCRIPT),
    file!("events.js", JAVASCRIPT),
    file!("flow.js", JAVASCRIPT),
    file!("format.js", JAVASCRIPT),
    file!("journey.js", JAVASCRIPT),
    file!("order.js", JAVASCRIPT),
    file!("panels.js", JAVASCRIPT),
    file!("passage.js", JAVASCRIPT),
    file!("plots.js", JAVASCRIPT),
    file!("requests.js", JAVASCRIPT),
    file!("uPlot.iife.min.js", JAVASCRIPT),
    file!("favicon.svg", "image/svg+xml"),
    file!("licences.txt", "text/plain; charset=utf-8"),
];

/// The routes of all files.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route(
        "/operations",
        get(async || ([(CONTENT_TYPE, HTML)], operations::PAGE.as_str())),
    );
    for (path, kind, content) in FILES {
        router = router.route(path, get(async move || ([(CONTENT_TYPE, kind)], content)));
    }
    router.layer(map_response(confined))
}

async fn confined(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        // A newer binary has another page.
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
