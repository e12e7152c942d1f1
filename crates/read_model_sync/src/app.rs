//! Puts the service together.

use std::process::ExitCode;
use std::sync::LazyLock;

use axum::Router;
use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{Connector, Role, Supervisor};
use common::endpoints::Queue;
use common::readiness::Readiness;
use common::service::{self, Lifecycle};
use common::{broker, database, http, migrations};
use utoipa::OpenApi;

use crate::arguments::{Arguments, Command};
use crate::config::{self, Config};
use crate::dead_letters;
use crate::metrics::METRICS;
use crate::projector::Projector;
use crate::queue_depths;
use crate::recent_letters::{self, RecentLetters};
use crate::verify;

const NAME: &str = "read_model_sync";

/// The name of the connection that consumes.
const CONNECTION: &str = "read_model_sync";

/// Runs the service, or the command that the command line names.
#[must_use]
pub fn run() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, Config::from_env, start),
        Some(Command::DeadLetters(task)) => service::run_admin(NAME, Queue::from_env, |queue, stopping| {
            dead_letters::run(queue, task, stopping)
        }),
        Some(Command::Verify(options)) => {
            service::run_admin(NAME, config::read_model, |read_model, stopping| {
                verify::run(read_model, options, stopping)
            })
        }
    })
}

/// Waits for the schema of the read model and the queue, then projects, and answers `/healthcheck`: healthy means that it has begun to project.
///
/// # Errors
/// When the port cannot be bound or the HTTP client cannot be built.
async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    LazyLock::force(&METRICS);
    queue_depths::show();
    migrations::wait(&config.migration).await?;
    let pool = database::connect(&config.read_model, "read_model").await?;
    let readiness = Readiness::default()
        .needs("read_model", pool.writable())
        .needs("broker", || std::future::ready(broker::state(CONNECTION)));
    let connector = Connector {
        endpoint: config.queue,
        queue: BUY_ORDER_QUEUE,
        name: CONNECTION,
    };
    let mut supervisor = Supervisor::new(connector.clone(), Role::Listener, lifecycle.stopping());
    let Some(session) = supervisor.connect().await else {
        return Ok(());
    };
    let recent = RecentLetters::default();
    let mut projector = Projector::new(pool, connector, recent.clone(), lifecycle.stopping());
    lifecycle.spawn("projector", async move {
        supervisor.run(Some(session), &mut projector).await;
        Ok(())
    });

    let listener = http::bind(&config.listen).await?;
    let routes = http::routes(Router::new(), ApiDoc::openapi(), readiness).with_operators(recent.route());
    lifecycle.spawn("http", http::serve(listener, routes, lifecycle.stopping()));
    Ok(())
}

/// For `/openapi.json` and `/docs`; the title and the description are the crate's.
#[derive(OpenApi)]
#[openapi(paths(recent_letters::dead_letters))]
struct ApiDoc;
