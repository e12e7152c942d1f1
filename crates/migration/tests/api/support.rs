//! Helpers of several tests.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgPool};

/// Generous: the process needs about a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Databases of the current version, without services.
pub(crate) async fn databases() -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await
}

/// A process of `migration --once`, with the environment that the cluster gives the service.
pub(crate) struct Once(std::process::Child);

impl Once {
    pub(crate) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migration"));
        command
            .arg("--once")
            .env_clear()
            .envs(cluster.environment(Service::Migration)?);
        Ok(Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?,
        ))
    }

    /// SIGKILL: the process cannot clean up.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Its exit code and its events.
    pub(crate) async fn end(self) -> anyhow::Result<(Option<i32>, Vec<Value>)> {
        let pid = self.0.id().to_string();
        let waiting = tokio::task::spawn_blocking(move || self.0.wait_with_output());
        let Ok(ended) = tokio::time::timeout(LIMIT, waiting).await else {
            // Without this, the thread that waits for the process would block the end of the test.
            Command::new("kill").args(["-9", &pid]).status()?;
            anyhow::bail!("migration --once did not end within {LIMIT:?}");
        };
        let Output { status, stderr, .. } = ended??;
        let lines = String::from_utf8(stderr)?;
        Ok((
            status.code(),
            lines
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        ))
    }
}

/// Waits until the service answers.
pub(crate) async fn healthy(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the service is healthy", LIMIT, async || {
        let url = cluster.url(Service::Migration) + "/healthcheck";
        Ok(cluster.http().get(url).send().await?.status() == 200)
    })
    .await
}

/// Runs `migration --once` to its end.
pub(crate) async fn once(cluster: &Cluster) -> anyhow::Result<(Option<i32>, Vec<Value>)> {
    Once::start(cluster)?.end().await
}

/// The events of a name.
pub(crate) fn named<'e>(events: &'e [Value], event: &str) -> Vec<&'e Value> {
    events
        .iter()
        .filter(|candidate| candidate.get("event").and_then(Value::as_str) == Some(event))
        .collect()
}

/// What the first failed migration says, by the events.
pub(crate) fn failure(events: &[Value]) -> &str {
    let failures = named(events, "database_migration_exception_occurred");
    let info = failures.first().and_then(|failure| failure.get("info")?.as_str());
    info.unwrap_or_default()
}

/// The number of applied migrations for each database, by the events.
pub(crate) fn applied(events: &[Value]) -> Vec<(String, u64)> {
    let mut found: Vec<_> = named(events, "database_migrated")
        .into_iter()
        .filter_map(|event| {
            Some((
                event.get("database")?.as_str()?.to_owned(),
                event.get("applied")?.as_u64()?,
            ))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The number of migration files of a model.
pub(crate) fn migrations(model: &str) -> anyhow::Result<u64> {
    let folder = format!("{}/../../migrations/{model}", env!("CARGO_MANIFEST_DIR"));
    Ok(u64::try_from(std::fs::read_dir(folder)?.count())?)
}

/// The error of a refused statement: SQLSTATE, the constraint if one was violated, and the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) constraint: Option<String>,
    pub(crate) message: String,
}

/// Runs a statement that must be refused.
pub(crate) async fn refusal(pool: &PgPool, statement: &str) -> anyhow::Result<Refusal> {
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await;
    let error = outcome
        .err()
        .with_context(|| format!("was not refused: {statement}"))?;
    let refused = error.as_database_error().context("no answer of the database")?;
    let refused = refused.downcast_ref::<PgDatabaseError>();
    Ok(Refusal {
        code: refused.code().to_owned(),
        constraint: refused.constraint().map(str::to_owned),
        message: refused.message().to_owned(),
    })
}

/// Asserts that each statement violates the check constraint named with it.
pub(crate) async fn each_breaks_its_check(
    pool: &PgPool,
    statements: &[(&str, String)],
) -> anyhow::Result<()> {
    for (constraint, statement) in statements {
        let refused = refusal(pool, statement).await?;
        assert_eq!(
            (refused.code.as_str(), refused.constraint.as_deref()),
            ("23514", Some(*constraint)),
            "{statement}"
        );
    }
    Ok(())
}

/// Our tables, columns, views and functions without a comment. Columns of views are left out: they are those of tables.
pub(crate) async fn uncommented(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    const UNCOMMENTED: &str = "
        SELECT c.relname || coalesce('.' || a.attname, '')
        FROM pg_class c
        LEFT JOIN LATERAL (
            SELECT attname, attnum FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
            UNION ALL SELECT NULL, 0
        ) a ON true
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'refinery_schema_history'
          AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
        ORDER BY 1";
    Ok(sqlx::query_scalar(UNCOMMENTED).fetch_all(pool).await?)
}

/// Takes the write model back to version 5, with its data.
pub(crate) async fn undo_version_6(pool: &PgPool) -> anyhow::Result<()> {
    const UNDO_VERSION_6: &str = "
        DROP FUNCTION void_order, count_orders_of_clients, buy_order_voided_payload,
                      accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[], numeric);
        DROP TABLE buy_order_void, client_running_total;
        ALTER TABLE buy_order_running_total DROP COLUMN counted_to;
        DELETE FROM refinery_schema_history WHERE version = 6";
    // refinery refuses to apply a version before the newest one.
    anyhow::ensure!(migrations("write_model")? == 6, "undo the newest version");
    sqlx::raw_sql(UNDO_VERSION_6).execute(pool).await?;
    Ok(())
}
