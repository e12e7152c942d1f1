//! `GET /openapi.json`, the description of a service, and `GET /docs/`, a page to try it, which needs no network.
//!
//! All URLs in them are relative, so that they work behind a proxy that strips a path prefix. The `axum` feature of `utoipa-swagger-ui` is
//! not used: it redirects to an absolute path, and sends gzip to every client.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::header::{self, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use flate2::read::GzDecoder;
use hyper::body::Bytes;
use utoipa::openapi::{OpenApi, Server};
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::accept_encoding::Accepted;
use super::problem::Problem;

/// The routes of the page and of the document that it shows.
pub(super) fn routes(mut document: OpenApi) -> Router {
    // Relative to the URL of the document.
    document.servers = Some(vec![Server::new(".")]);
    let document = Arc::new(document);
    let page = Page {
        // Otherwise the page would call validator.swagger.io.
        config: Arc::new(Config::new(["../openapi.json"]).validator_url("none")),
        decompressed: Mutex::default(),
    };
    Router::new()
        .route("/docs", get(async || Redirect::to("docs/")))
        .route("/docs/", get(file))
        .route("/docs/{*file}", get(file))
        .with_state(Arc::new(page))
        .route("/openapi.json", get(async move || Json(document)))
        .layer(map_response(confined))
}

/// What a browser lets the page do: load what comes with it, ask this service, and nothing else. No other site may frame it.
/// The hash is that of the style within Swagger UI's logo.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Tells browsers to keep the page to itself (OWASP Secure Headers).
async fn confined(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

struct Page {
    config: Arc<Config<'static>>,
    /// Decompressed files, at most 4 MB. Each is kept once: copies per request would have no memory limit.
    decompressed: Mutex<HashMap<String, Bytes>>,
}

async fn file(
    State(page): State<Arc<Page>>,
    path: Option<Path<String>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&page.config))
        .map_err(|error| Problem::internal(anyhow::anyhow!("the page at /docs: {error}")))?
        .ok_or_else(|| Problem::client(StatusCode::NOT_FOUND, "Not Found"))?;
    let accepted = Accepted::of(headers.get_all(ACCEPT_ENCODING));
    let described = [
        (CONTENT_TYPE, file.content_type.clone()),
        (VARY, ACCEPT_ENCODING.to_string()),
    ];
    if file.gzpipped && accepted.prefers_gzip() {
        return Ok((described, [(CONTENT_ENCODING, "gzip")], file.bytes).into_response());
    }
    if !accepted.takes_identity() {
        return Err(Problem::client(StatusCode::NOT_ACCEPTABLE, "Not Acceptable"));
    }
    Ok((described, page.plain(path, file)?).into_response())
}

impl Page {
    /// The uncompressed bytes of a file.
    fn plain(&self, path: String, file: SwaggerFile<'static>) -> Result<Bytes, Problem> {
        if !file.gzpipped {
            return Ok(Bytes::from_owner(file.bytes));
        }
        let mut decompressed = self.decompressed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plain) = decompressed.get(&path) {
            return Ok(plain.clone());
        }
        let mut plain = Vec::new();
        GzDecoder::new(file.bytes.as_ref())
            .read_to_end(&mut plain)
            .map_err(Problem::internal)?;
        let plain = Bytes::from(plain);
        decompressed.insert(path, plain.clone());
        Ok(plain)
    }
}
