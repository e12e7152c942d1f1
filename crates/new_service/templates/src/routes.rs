//! The HTTP surface: `GET /{{name}}`, an example to start from.

use axum::routing::get;
use axum::{Json, Router};
{% if databases %}
use common::database::Pool;
{% endif %}
use common::endpoints::{ {{ shared | map(attribute="kind") | reject("eq", "Database") | unique | join(", ") }} };
use common::http::{self, Detail, Routes};
use common::readiness::Readiness;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

#[derive(OpenApi)]
#[openapi(
    info(title = "{{name}}", description = "Made like {{model}}; say here what it does"),
    paths(example)
)]
struct Document;

/// What the handlers share; cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    {% for group in shared %}
    /// `{{group.prefix}}_…`.
    pub {{group.field}}: {{ "Pool" if group.kind == "Database" else group.kind }},
    {% endfor %}
}

/// All routes of the service.
pub fn router(state: State, readiness: Readiness) -> Routes {
    let api = Router::new()
        .route("/{{name}}", get(example))
        .with_state(state);
    http::routes(api, Document::openapi(), readiness)
}

/// The example's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Example {
    /// Who answered.
    #[schema(example = "{{name}}")]
    service: &'static str,
}

/// An example
#[utoipa::path(
    get,
    path = "/{{name}}",
    responses(
        (status = 200, description = "Who answered", body = Example),
        (status = 405, description = "Another method than GET", headers(("Allow" = String)), body = Detail,
            example = json!({"detail": "Method Not Allowed"})),
    )
)]
async fn example() -> Json<Example> {
    Json(Example { service: "{{name}}" })
}
