//! What every service answers besides its own routes.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use utoipa::{OpenApi, openapi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::health::{self, healthcheck};
use super::problem::Problem;

/// Adds to the routes of a service, which `document` describes: `GET /healthcheck`; `GET /openapi.json` and `GET /docs`, whose page needs
/// no network; and `404` for every other path.
pub fn routes(api: Router, mut document: openapi::OpenApi) -> Router {
    document.merge(Common::openapi());
    let docs = SwaggerUi::new("/docs")
        // The page would ask validator.swagger.io otherwise.
        .config(Config::default().validator_url("none"))
        .url("/openapi.json", document);
    api.route("/healthcheck", get(healthcheck))
        .merge(docs)
        .fallback(async || Problem::client(StatusCode::NOT_FOUND, "Not Found"))
}

/// What every service answers.
#[derive(OpenApi)]
#[openapi(paths(health::healthcheck))]
struct Common;
