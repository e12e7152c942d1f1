//! Brings the schema of one database up to date.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context as _;
use common::database::outage;
use common::endpoints::Database;
use common::{database, retry};
use refinery::Runner;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout};

use crate::history::Session;

mod write_model {
    refinery::embed_migrations!("../../migrations/write_model");
}

mod read_model {
    refinery::embed_migrations!("../../migrations/read_model");
}

/// Refinery takes no lock, so one process at a time holds this advisory lock of the database while it migrates. The lock belongs to a
/// transaction on a connection of its own: a session lock would stay on the pooler's connection. It is polled, so that a process that waits
/// does not occupy a connection of the pooler.
const TRY_LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('schema migration', 0)) AS locked";

const LOCK_POLL: Duration = Duration::from_millis(200);
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Shorter than `idle_in_transaction_session_timeout` (15 s), after which the server frees the lock of a process that vanished.
const LOCK_KEEPALIVE: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(12);

/// The schemas that have a history of migrations; first `public`, which the services use.
const HISTORY_SCHEMAS: &str =
    "SELECT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'refinery_schema_history' ORDER BY nspname <> 'public', nspname";

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The database of orders, the golden source.
    Write,
    /// The database that pages are served from.
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

    /// Runs each embedded migration in a transaction of its own, together with its row in refinery's history table.
    fn runner(self) -> Runner {
        let runner = match self {
            Self::Write => write_model::migrations::runner(),
            Self::Read => read_model::migrations::runner(),
        };
        // After a rollback an older image must start on a newer schema. A unit test checks that no version is missing.
        runner.set_abort_missing(false)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect")]
    Connect(#[source] sqlx::Error),
    #[error("lost the session, or cannot lock the schema")]
    Session(#[source] sqlx::Error),
    #[error("another process has been migrating for {} s", LOCK_TIMEOUT.as_secs())]
    Busy,
    #[error("a migration failed")]
    Migration(#[source] refinery::Error),
    #[error(
        "its tables are in the schema \"{0}\", where the services do not look: they use public, whatever search_path says. Move them there \
         (ALTER TABLE … SET SCHEMA public), or give the services a database whose tables are in public"
    )]
    Elsewhere(String),
}

impl Failure {
    /// By the same list of transient errors as in the services.
    fn is_transient(&self) -> bool {
        let error = match self {
            Self::Connect(_) | Self::Busy => return true,
            Self::Elsewhere(_) => return false,
            Self::Session(error) => Some(error),
            Self::Migration(error) => error
                .source()
                .and_then(|source| source.downcast_ref::<sqlx::Error>()),
        };
        error.is_some_and(outage::is_transient)
    }
}

/// Applies the missing migrations. While the database is away or busy, retries with backoff and an event per attempt.
///
/// # Errors
/// A migration differs from the one that was applied, or the database refuses it.
pub async fn bring_up_to_date(model: Model, database: &Database) -> anyhow::Result<()> {
    let name = model.name();
    let mut pauses = retry::pauses(database.retry_wait);
    loop {
        let failure = match migrate(model, database).await {
            Ok(applied) => {
                tracing::info!(event = "database_migrated", database = name, applied);
                return Ok(());
            }
            Err(failure) => failure,
        };
        let is_transient = failure.is_transient();
        let is_connecting = matches!(failure, Failure::Connect(_));
        let failure = anyhow::Error::new(failure);
        let chain = format!("{failure:#}");
        if is_connecting {
            let Database { host, port, user, .. } = database;
            tracing::warn!(
                event = "failed_to_connect_to_database",
                database = name,
                host,
                port,
                user,
                error = chain
            );
        } else {
            tracing::error!(
                event = "database_migration_exception_occurred",
                database = name,
                info = chain
            );
        }
        if !is_transient {
            return Err(failure).with_context(|| format!("the {name} cannot be migrated"));
        }
        sleep(pauses.next().unwrap_or(database.retry_wait)).await;
    }
}

/// One attempt; returns the number of applied migrations. The lock ends with its connection, even if this process is killed.
async fn migrate(model: Model, database: &Database) -> Result<usize, Failure> {
    let mut session = database::session(database).await.map_err(Failure::Connect)?;
    let Database { host, port, user, .. } = database;
    tracing::info!(
        event = "connected_to_database",
        database = model.name(),
        host,
        port,
        user
    );
    let has_history = find_history(&mut session).await?;
    let (mut session, runner) = (Session::new(session), model.runner());
    if has_history && is_up_to_date(&runner, &mut session).await? {
        return Ok(0);
    }
    let mut lock = database::session(database).await.map_err(Failure::Connect)?;
    acquire(&mut lock).await?;
    tokio::select! {
        report = runner.run_async(&mut session) => {
            let report = report.map_err(Failure::Migration)?;
            // Closing the connection would end the lock, too, so an error is ignored: the migrations are committed.
            let _ = query(&mut lock, "ROLLBACK").await;
            Ok(report.applied_migrations().len())
        }
        lost = keep_alive(&mut lock) => Err(Failure::Session(lost)),
    }
}

async fn acquire(lock: &mut PgConnection) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < LOCK_TIMEOUT {
        if try_lock(lock).await.map_err(Failure::Session)? {
            return Ok(());
        }
        sleep(LOCK_POLL).await;
    }
    Err(Failure::Busy)
}

/// Leaves the transaction open when it has the lock.
async fn try_lock(lock: &mut PgConnection) -> sqlx::Result<bool> {
    query(lock, "BEGIN").await?;
    let rows = query(lock, TRY_LOCK).await?;
    let locked: bool = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("locked")?;
    if !locked {
        query(lock, "ROLLBACK").await?;
    }
    Ok(locked)
}

/// Ends when the lock is lost. Needed because a migration may take hours, and must notice a server that vanished.
async fn keep_alive(lock: &mut PgConnection) -> sqlx::Error {
    loop {
        sleep(LOCK_KEEPALIVE).await;
        if let Err(error) = query(lock, "SELECT").await {
            return error;
        }
    }
}

async fn query(connection: &mut PgConnection, statement: &'static str) -> sqlx::Result<Vec<PgRow>> {
    let answered = timeout(QUERY_TIMEOUT, sqlx::raw_sql(statement).fetch_all(connection)).await;
    answered.map_err(|_| timed_out())?
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Whether any migration was ever applied. Fails when that was in another schema than `public`: a second schema would begin without the
/// existing orders.
async fn find_history(session: &mut PgConnection) -> Result<bool, Failure> {
    let rows = query(session, HISTORY_SCHEMAS).await.map_err(Failure::Session)?;
    let Some(first) = rows.first() else {
        return Ok(false);
    };
    let schema: String = first.try_get("nspname").map_err(Failure::Session)?;
    if schema == "public" {
        Ok(true)
    } else {
        Err(Failure::Elsewhere(schema))
    }
}

/// Whether every embedded migration was applied unchanged. Only reads, because refinery begins with a `CREATE TABLE`, which fails on a standby
/// or a read-only database.
async fn is_up_to_date(runner: &Runner, session: &mut Session) -> Result<bool, Failure> {
    let applied = timeout(QUERY_TIMEOUT, runner.get_applied_migrations_async(session)).await;
    let applied = applied
        .map_err(|_| Failure::Session(timed_out()))?
        .map_err(Failure::Migration)?;
    Ok(runner
        .get_migrations()
        .iter()
        .all(|migration| applied.contains(migration)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The versions of a model's files, in ascending order. Each file must be named `V<n>__<snake_case>.sql`.
    fn versions(model: Model) -> std::io::Result<Vec<u32>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../migrations")
            .join(model.name());
        let mut versions = Vec::new();
        for file in std::fs::read_dir(folder)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            let version = version(&name);
            assert!(version.is_some(), "{name} is not named V<n>__<snake_case>.sql");
            versions.extend(version);
        }
        versions.sort_unstable();
        Ok(versions)
    }

    fn version(file_name: &str) -> Option<u32> {
        let (version, title) = file_name
            .strip_prefix('V')?
            .strip_suffix(".sql")?
            .split_once("__")?;
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let number: u32 = version.parse().ok()?;
        (number.to_string() == version && title.split('_').all(is_word)).then_some(number)
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
