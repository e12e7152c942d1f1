//! How the schema of one database is brought up to date.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context as _;
use common::database::outage;
use common::endpoints::Database;
use common::{database, retry};
use refinery::Runner;
use sqlx::{PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout};

use crate::history::Session;

mod write_model {
    refinery::embed_migrations!("../../migrations/write_model");
}

mod read_model {
    refinery::embed_migrations!("../../migrations/read_model");
}

/// Refinery locks nothing, so one process at a time holds this lock for its whole run. Advisory locks are per database. It belongs to a
/// transaction that stays open meanwhile, on a connection of its own: behind a pooler, a session's would stay on whatever connection took it.
/// It is tried for and not waited for, so that who waits does not keep a connection of the pooler.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('schema migration', 0))";

const LOCK_TRIED_EVERY: Duration = Duration::from_millis(200);
const LOCK_TRIED_FOR: Duration = Duration::from_secs(60);

/// Shorter than a transaction may stand idle (15 s), after which the server frees the lock of a process that vanished.
const LOCK_LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Where a schema was applied that is not where the services look.
const ELSEWHERE: &str =
    "SELECT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'refinery_schema_history' ORDER BY nspname <> 'public', nspname";

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
    Connect(#[source] sqlx::Error),
    #[error("lost the session, or cannot lock the schema")]
    Session(#[source] sqlx::Error),
    #[error("another process has been migrating for {} s", LOCK_TRIED_FOR.as_secs())]
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
    /// Whether waiting may mend it, by the list of what passes that the services keep to.
    fn is_transient(&self) -> bool {
        let error = match self {
            Self::Connect(_) | Self::Busy => return true,
            Self::Elsewhere(_) => return false,
            Self::Session(error) => Some(error),
            Self::Migration(error) => error
                .source()
                .and_then(|source| source.downcast_ref::<sqlx::Error>()),
        };
        error.is_some_and(outage::is_away)
    }
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

/// One attempt; answers how many migrations it applied. The lock goes when its connection is closed, however that comes about.
async fn migrate(model: Model, database: &Database) -> Result<usize, Failure> {
    let mut session = database::session(database).await.map_err(Failure::Connect)?;
    tracing::info!(
        event = "connected_to_database",
        database = model.name(),
        host = database.host,
        port = database.port,
        user = database.user,
    );
    let has_history = find_history(&mut session).await?;
    let (mut session, runner) = (Session::new(session), model.runner());
    if has_history && is_up_to_date(&runner, &mut session).await? {
        return Ok(0);
    }
    let mut lock = database::session(database).await.map_err(Failure::Connect)?;
    take(&mut lock).await?;
    tokio::select! {
        report = runner.run_async(&mut session) => {
            let report = report.map_err(Failure::Migration)?;
            // It would end with its connection, too. The migrations are committed, whatever the answer.
            let _ = ask(&mut lock, "ROLLBACK").await;
            Ok(report.applied_migrations().len())
        }
        lost = hold(&mut lock) => Err(Failure::Session(lost)),
    }
}

async fn take(lock: &mut PgConnection) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < LOCK_TRIED_FOR {
        if try_to_take(lock).await.map_err(Failure::Session)? {
            return Ok(());
        }
        sleep(LOCK_TRIED_EVERY).await;
    }
    Err(Failure::Busy)
}

/// Leaves the transaction open where it has the lock.
async fn try_to_take(lock: &mut PgConnection) -> sqlx::Result<bool> {
    ask(lock, "BEGIN").await?;
    let taken = timeout(ANSWER_LIMIT, sqlx::raw_sql(LOCK).fetch_one(&mut *lock)).await;
    let taken: bool = taken.map_err(|_| silent())??.try_get(0)?;
    if !taken {
        ask(lock, "ROLLBACK").await?;
    }
    Ok(taken)
}

/// Ends when the lock is lost. A server that is gone without a word is noticed so, too: a migration itself may take hours.
async fn hold(lock: &mut PgConnection) -> sqlx::Error {
    loop {
        sleep(LOCK_LOOKED_AT_EVERY).await;
        if let Err(error) = ask(lock, "SELECT").await {
            return error;
        }
    }
}

async fn ask(connection: &mut PgConnection, statement: &'static str) -> sqlx::Result<()> {
    let answered = timeout(ANSWER_LIMIT, sqlx::raw_sql(statement).execute(connection)).await;
    answered.map_err(|_| silent())?.map(drop)
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Whether anything was ever applied. A schema that is not where it is looked for is not made once more: orders would begin anew in it, beside
/// those that there are.
async fn find_history(session: &mut PgConnection) -> Result<bool, Failure> {
    let rows = timeout(ANSWER_LIMIT, sqlx::raw_sql(ELSEWHERE).fetch_all(session)).await;
    let rows = rows.map_err(|_| silent()).flatten().map_err(Failure::Session)?;
    let Some(first) = rows.first() else {
        return Ok(false);
    };
    let schema: String = first.try_get(0).map_err(Failure::Session)?;
    if schema == "public" {
        Ok(true)
    } else {
        Err(Failure::Elsewhere(schema))
    }
}

/// Whether every migration was applied, just as it is here. Only reads, where refinery begins with a `CREATE TABLE`: a standby, or a database
/// that is read-only for a while, is up to date all the same.
async fn is_up_to_date(runner: &Runner, session: &mut Session) -> Result<bool, Failure> {
    let applied = timeout(ANSWER_LIMIT, runner.get_applied_migrations_async(session)).await;
    let applied = applied
        .map_err(|_| Failure::Session(silent()))?
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
