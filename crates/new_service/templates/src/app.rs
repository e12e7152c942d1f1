//! What the process does, from start to serving.

use std::process::ExitCode;

{% if waits_for_broker %}
use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{Connector, Role, Supervisor};
{% endif %}
use common::readiness::Readiness;
use common::service::{self, Lifecycle};
use common::{http, {% if databases %}database,{% endif %} {% if waits_for_migration %}migrations,{% endif %} };

use crate::config::Config;
use crate::routes::{self, State};

/// Runs the service until it is asked to stop.
#[must_use]
pub fn run() -> ExitCode {
    service::run("{{name}}", Config::from_env, start)
}

/// Waits for what the service needs, then serves.
///
/// # Errors
/// When the port cannot be bound.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    {% if waits_for_migration %}
    migrations::wait(&config.migration).await?;
    {% endif %}
    {% for field in databases %}
    let {{field}} = database::connect(&config.{{field}}, "{{field}}").await?;
    {% endfor %}
    {% if waits_for_broker %}
    // This connection only proves that the broker is there. A task that consumes or publishes opens its own.
    let connector = Connector { endpoint: config.queue.clone(), queue: BUY_ORDER_QUEUE, name: "{{name}}" };
    let session = Supervisor::new(connector, Role::Publisher, lifecycle.stopping()).connect().await;
    let Some(session) = session else { return Ok(()); };
    session.close().await;
    {% endif %}

    let readiness = Readiness::default()
        {% for field in databases %}.needs("{{field}}", {{field}}.readable()){% endfor %};
    let state = State {
        {% for group in shared %}
        {{group.field}}{% if group.kind != "Database" %}: config.{{group.field}}{% endif %},
        {% endfor %}
    };
    let listener = http::bind(&config.listen).await?;
    lifecycle.spawn("http", http::serve(listener, routes::router(state, readiness), lifecycle.stopping()));
    Ok(())
}
