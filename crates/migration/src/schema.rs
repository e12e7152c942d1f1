//! Brings the schema of one database up to date.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context as _;
use common::database::{self, is_transient};
use common::endpoints::Database;
use common::logging::chain;
use common::retry;
use refinery::Runner;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout};

use crate::history::Session;
use crate::roles::{self, Role};

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
pub(crate) enum Model {
    Write,
    Read,
}

impl Model {
    /// The name that events give the database.
    pub(crate) const fn name(self) -> &'static str {
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
pub(crate) enum Failure {
    #[error("cannot connect")]
    Connect(#[source] sqlx::Error),
    #[error("lost the session, or cannot lock the schema")]
    Session(#[from] sqlx::Error),
    #[error("another process has been migrating for {} s", LOCK_TIMEOUT.as_secs())]
    Busy,
    #[error("a migration failed")]
    Migration(#[from] refinery::Error),
    #[error("cannot set up the role of a service")]
    Role(#[source] sqlx::Error),
    #[error(
        "its tables are in the schema \"{0}\", where the services do not look: they use public, whatever search_path says. Move them there \
         (ALTER TABLE … SET SCHEMA public), or give the services a database whose tables are in public"
    )]
    Elsewhere(String),
}

impl Failure {
    /// By the same list of transient errors as in the services.
    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Busy => true,
            Self::Elsewhere(_) => false,
            Self::Session(error) | Self::Role(error) => is_transient(error),
            Self::Migration(error) => error
                .source()
                .and_then(|source| source.downcast_ref())
                .is_some_and(is_transient),
        }
    }
}

/// Applies the missing migrations, then sets up the roles of the services. While the database is away or busy, retries with backoff and an event per attempt.
///
/// # Errors
/// A migration differs from the one that was applied, or the database refuses it.
pub(crate) async fn bring_up_to_date(
    model: Model,
    database: &Database,
    roles: &[Role],
) -> anyhow::Result<()> {
    let name = model.name();
    let mut pauses = retry::pauses(database.retry_wait);
    loop {
        let brought = async {
            let applied = migrate(model, database).await?;
            roles::bring_up_to_date(database, roles).await?;
            Ok(applied)
        };
        let failure = match brought.await {
            Ok(applied) => {
                tracing::info!(event = "database_migrated", database = name, applied);
                return Ok(());
            }
            Err(failure) => failure,
        };
        if matches!(failure, Failure::Connect(_)) {
            let Database { host, port, user, .. } = database;
            tracing::warn!(
                event = "failed_to_connect_to_database",
                database = name,
                host,
                port,
                user,
                error = chain(&failure)
            );
        } else {
            tracing::error!(
                event = "database_migration_exception_occurred",
                database = name,
                info = chain(&failure)
            );
        }
        if !failure.is_transient() {
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
    let (mut session, runner) = (Session(session), model.runner());
    if has_history && is_up_to_date(&runner, &mut session).await? {
        return Ok(0);
    }
    let mut lock = database::session(database).await.map_err(Failure::Connect)?;
    acquire(&mut lock).await?;
    tokio::select! {
        report = runner.run_async(&mut session) => {
            let applied = report?.applied_migrations().len();
            // Closing the connection would end the lock, too, so an error is ignored: the migrations are committed.
            let _ = query(&mut lock, "ROLLBACK").await;
            Ok(applied)
        }
        lost = keep_alive(&mut lock) => Err(Failure::Session(lost)),
    }
}

/// Leaves the transaction that has the lock open.
pub(crate) async fn acquire(lock: &mut PgConnection) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < LOCK_TIMEOUT {
        query(lock, "BEGIN").await?;
        let rows = query(lock, TRY_LOCK).await?;
        if rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("locked")? {
            return Ok(());
        }
        query(lock, "ROLLBACK").await?;
        sleep(LOCK_POLL).await;
    }
    Err(Failure::Busy)
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

/// Runs a statement that is not prepared, so that poolers need not know it.
pub(crate) async fn query(connection: &mut PgConnection, statement: &str) -> sqlx::Result<Vec<PgRow>> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    let answered = timeout(QUERY_TIMEOUT, statement.fetch_all(connection)).await;
    answered.map_err(|_| timed_out())?
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Whether any migration was ever applied. Fails when that was in another schema than `public`: a second schema would begin without the
/// existing orders.
async fn find_history(session: &mut PgConnection) -> Result<bool, Failure> {
    let rows = query(session, HISTORY_SCHEMAS).await?;
    let Some(first) = rows.first() else {
        return Ok(false);
    };
    match first.try_get("nspname")? {
        "public" => Ok(true),
        other => Err(Failure::Elsewhere(other.to_owned())),
    }
}

/// Whether every embedded migration was applied unchanged. Only reads, because refinery begins with a `CREATE TABLE`, which fails on a standby
/// or a read-only database.
async fn is_up_to_date(runner: &Runner, session: &mut Session) -> Result<bool, Failure> {
    let applied = timeout(QUERY_TIMEOUT, runner.get_applied_migrations_async(session)).await;
    let applied = applied.map_err(|_| timed_out())??;
    let mut embedded = runner.get_migrations().iter();
    Ok(embedded.all(|migration| applied.contains(migration)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn is_snake_case(name: &str) -> bool {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name.split('_')
            .all(|word| !word.is_empty() && word.bytes().all(is_part))
    }

    #[test]
    fn migration_files_are_embedded_well_named_and_numbered_without_a_gap_or_a_repeat() -> std::io::Result<()>
    {
        for model in [Model::Write, Model::Read] {
            let mut embedded = model.runner().get_migrations().clone();
            embedded.sort();
            for (version, migration) in (1..).zip(&embedded) {
                assert_eq!(migration.version(), version, "{}: {migration}", model.name());
                assert!(is_snake_case(migration.name()), "{migration}");
            }
            let names: BTreeSet<String> = embedded.iter().map(|file| format!("{file}.sql")).collect();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
            let mut files = BTreeSet::new();
            for file in std::fs::read_dir(folder.join(model.name()))? {
                files.insert(file?.file_name().to_string_lossy().into_owned());
            }
            assert_eq!(files, names);
        }
        Ok(())
    }
}
