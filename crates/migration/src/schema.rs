//! How the schema of one database is brought up to date.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context as _;
use common::database::outage;
use common::endpoints::Database;
use common::retry;
use refinery::Runner;
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, Severity};

mod write_model {
    refinery::embed_migrations!("../../migrations/write_model");
}

mod read_model {
    refinery::embed_migrations!("../../migrations/read_model");
}

/// Session settings of a run.
///
/// `client_connection_check_interval` has the server end a long statement of a process that was killed, and free the lock with it.
const SESSION: &str =
    "SET statement_timeout = 0; SET lock_timeout = '60s'; SET client_connection_check_interval = '5s'";

/// Refinery locks nothing, so one process at a time holds this lock for its whole session. Advisory locks are per database.
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('schema migration', 0))";

/// A migration that waits for a busy table makes everyone else wait behind it: better to give way soon and try again.
const WHILE_MIGRATING: &str = "SET lock_timeout = '5s'";

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The golden source.
    Write,
    /// What pages are served from.
    Read,
}

impl Model {
    /// The name that events give the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write_model",
            Self::Read => "read_model",
        }
    }

    /// Runs the embedded migrations, each in a transaction of its own together with its row in refinery's history table.
    fn runner(self) -> Runner {
        let runner = match self {
            Self::Write => write_model::migrations::runner(),
            Self::Read => read_model::migrations::runner(),
        };
        // An older image must start on a newer schema, as in a roll-back. That no version is skipped is a unit test's duty.
        runner.set_abort_missing(false)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect")]
    Connect(#[source] tokio_postgres::Error),
    #[error("lost the session, or cannot lock the schema")]
    Session(#[source] tokio_postgres::Error),
    #[error("a migration failed")]
    Migration(#[source] refinery::Error),
}

impl Failure {
    /// Whether waiting may mend it, by the list of what passes that the services keep to.
    fn is_transient(&self) -> bool {
        let error = match self {
            Self::Connect(_) => return true,
            Self::Session(error) => Some(error),
            Self::Migration(error) => error
                .source()
                .and_then(|source| source.downcast_ref::<tokio_postgres::Error>()),
        };
        // Without an answer of the server it is the connection's end.
        error.is_some_and(|error| error.as_db_error().is_none_or(is_transient))
    }
}

fn is_transient(refusal: &DbError) -> bool {
    let ends_session = matches!(refusal.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
    outage::passes(refusal.code().code(), ends_session)
}

/// Applies what is missing. Waits with backoff, and an event per try, while the database is away or busy.
///
/// # Errors
/// What waiting cannot mend: a migration that differs from the one that was applied, or that the database refuses.
pub async fn bring_up_to_date(model: Model, database: &Database) -> anyhow::Result<()> {
    let mut pauses = retry::pauses(database.retry_wait);
    loop {
        let failure = match migrate(model, database).await {
            Ok(applied) => {
                tracing::info!(event = "database_migrated", database = model.name(), applied);
                return Ok(());
            }
            Err(failure) => failure,
        };
        let transient = failure.is_transient();
        let connecting = matches!(failure, Failure::Connect(_));
        let chain = anyhow::Error::new(failure);
        if connecting {
            tracing::warn!(
                event = "failed_to_connect_to_database",
                database = model.name(),
                host = database.host,
                port = database.port,
                user = database.user,
                error = format!("{chain:#}"),
            );
        } else {
            tracing::error!(
                event = "database_migration_exception_occurred",
                database = model.name(),
                info = format!("{chain:#}"),
            );
        }
        if !transient {
            return Err(chain).with_context(|| format!("the {} cannot be migrated", model.name()));
        }
        tokio::time::sleep(pauses.next().unwrap_or(database.retry_wait)).await;
    }
}

/// One attempt, in one session; answers how many migrations it applied. The lock goes when the session ends, however it ends.
async fn migrate(model: Model, database: &Database) -> Result<usize, Failure> {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    const KEEPALIVE: Duration = Duration::from_secs(10);
    let (mut client, connection) = tokio_postgres::Config::new()
        .host(&database.host)
        .port(database.port)
        .dbname(&database.name)
        .user(&database.user)
        .password(database.password.expose())
        .application_name("migration")
        .connect_timeout(CONNECT_TIMEOUT)
        // A host that vanished without a word is given up within a minute; a migration itself may take hours.
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .tcp_user_timeout(4 * KEEPALIVE)
        .connect(tokio_postgres::NoTls)
        .await
        .map_err(Failure::Connect)?;
    let session = tokio::spawn(connection);
    tracing::info!(
        event = "connected_to_database",
        database = model.name(),
        host = database.host,
        port = database.port,
        user = database.user,
    );
    let applied = apply_missing(model, &mut client).await?;
    drop(client);
    // Ends with the goodbye to the server. What it answers no longer matters: the migrations are committed.
    let _ = session.await;
    Ok(applied)
}

async fn apply_missing(model: Model, client: &mut Client) -> Result<usize, Failure> {
    if is_up_to_date(model, client).await? {
        return Ok(0);
    }
    for statement in [SESSION, LOCK, WHILE_MIGRATING] {
        client.batch_execute(statement).await.map_err(Failure::Session)?;
    }
    let report = model
        .runner()
        .run_async(client)
        .await
        .map_err(Failure::Migration)?;
    Ok(report.applied_migrations().len())
}

/// Whether every migration was applied, just as it is here. Only reads, where refinery begins with a `CREATE TABLE`: a standby, or a database
/// that is read-only for a while, is up to date all the same.
async fn is_up_to_date(model: Model, client: &mut Client) -> Result<bool, Failure> {
    const HISTORY: &str = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
    let has_history = client.query_one(HISTORY, &[]).await.map_err(Failure::Session)?;
    if !has_history.get::<_, bool>(0) {
        return Ok(false);
    }
    let runner = model.runner();
    let applied = runner.get_applied_migrations_async(client).await;
    let applied = applied.map_err(Failure::Migration)?;
    Ok(runner
        .get_migrations()
        .iter()
        .all(|migration| applied.contains(migration)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Versions of the files of a model, in ascending order; every name must be `V<n>__<snake_case>.sql`.
    fn versions(model: Model) -> std::io::Result<Vec<u32>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(model.name());
        let mut versions = Vec::new();
        for file in std::fs::read_dir(folder)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            let parts = name
                .strip_prefix('V')
                .and_then(|rest| rest.strip_suffix(".sql"))
                .and_then(|rest| rest.split_once("__"));
            let version = parts.and_then(|(version, title)| {
                let snake = title.split('_').all(|word| {
                    !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                });
                version
                    .parse()
                    .ok()
                    .filter(|number: &u32| snake && number.to_string() == version)
            });
            assert!(version.is_some(), "{name} is not named V<n>__<snake_case>.sql");
            versions.extend(version);
        }
        versions.sort_unstable();
        Ok(versions)
    }

    #[test]
    fn migration_files_are_well_named_and_numbered_without_a_gap_or_a_repeat() -> std::io::Result<()> {
        for model in [Model::Write, Model::Read] {
            let found = versions(model)?;
            let wanted: Vec<u32> = (1..).take(found.len()).collect();
            assert_eq!(found, wanted, "{}", model.name());
        }
        Ok(())
    }

    #[test]
    fn every_migration_file_is_embedded() -> std::io::Result<()> {
        for model in [Model::Write, Model::Read] {
            assert_eq!(
                model.runner().get_migrations().len(),
                versions(model)?.len(),
                "{}",
                model.name()
            );
        }
        Ok(())
    }
}
