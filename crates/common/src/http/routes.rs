//! Routes that every service has.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa::{OpenApi, openapi};

use super::docs;
use super::health::{self, HealthChecks, healthcheck, livez, readyz};
use super::problem::Problem;
use crate::metrics;
use crate::readiness::Readiness;

/// All routes of a service.
#[derive(Debug)]
pub struct Routes {
    /// For everybody who may reach the service.
    pub(super) clients: Router,
    /// For those who operate it: on a port of their own, where there is one.
    pub(super) operators: Router,
}

impl Routes {
    /// Adds routes for operators.
    #[must_use]
    pub fn with_operators(mut self, routes: Router) -> Self {
        self.operators = self.operators.merge(routes);
        self
    }

    /// What `change` makes of all routes, for example by a layer.
    #[must_use]
    pub fn map(self, change: impl Fn(Router) -> Router) -> Self {
        Self {
            clients: change(self.clients),
            operators: change(self.operators),
        }
    }
}

/// Adds the common routes to those of a service, which `document` describes: `GET /healthcheck`, `GET /openapi.json` and `GET /docs`, whose
/// page needs no network; and for operators `/livez`, `/readyz` and `/metrics`.
pub fn routes(api: Router, mut document: openapi::OpenApi, readiness: Readiness) -> Routes {
    document.merge(Common::openapi());
    let readiness = Arc::new(readiness);
    let checks = Arc::new(Mutex::new(HealthChecks::default()));
    // Unless they say otherwise, the answers are of one client, at one moment.
    Routes {
        clients: api
            .layer(map_response(not_stored))
            .route("/healthcheck", get(healthcheck).with_state(checks))
            .merge(docs::routes(document)),
        operators: Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz).with_state(Arc::clone(&readiness)))
            .route("/metrics", get(show_metrics).with_state(readiness)),
    }
}

async fn not_stored(mut response: Response) -> Response {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().entry(CACHE_CONTROL).or_insert(never);
    response
}

/// Metrics of this process
///
/// In Prometheus' text format, 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
async fn show_metrics(State(readiness): State<Arc<Readiness>>) -> Result<impl IntoResponse, Problem> {
    readiness.faults().await; // sets the gauge of readiness
    let text = metrics::scrape().map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, metrics::TEXT_FORMAT)], text))
}

/// The documentation of these routes.
#[derive(OpenApi)]
#[openapi(paths(health::healthcheck, health::livez, health::readyz, show_metrics))]
struct Common;
