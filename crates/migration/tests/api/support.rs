//! What several tests of this crate need.

use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use cluster::{Cluster, Service};
use serde_json::Value;
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgPool};

/// A generous limit for a process that should need a second.
const LIMIT_S: &str = "120";

/// `migration --once` as a process of its own, with the environment that the cluster gives the service, and what it wrote.
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

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Its exit code and its events.
    pub(crate) async fn end(self) -> anyhow::Result<(Option<i32>, Vec<Value>)> {
        let pid = self.0.id().to_string();
        let waiting = tokio::task::spawn_blocking(move || self.0.wait_with_output());
        let limit = std::time::Duration::from_secs(LIMIT_S.parse()?);
        let Ok(ended) = tokio::time::timeout(limit, waiting).await else {
            // Else the thread that waits for it would hold up the end of the test.
            Command::new("kill").args(["-9", &pid]).status()?;
            anyhow::bail!("migration --once did not end within {limit:?}");
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

/// What the events say was applied: database and number of migrations.
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

/// How many migrations there are of a model.
pub(crate) fn migrations(model: &str) -> anyhow::Result<u64> {
    let folder = format!("{}/../../migrations/{model}", env!("CARGO_MANIFEST_DIR"));
    Ok(u64::try_from(std::fs::read_dir(folder)?.count())?)
}

/// What the database refused: SQLSTATE, and the constraint where one was broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: String,
    pub(crate) constraint: Option<String>,
    pub(crate) message: String,
}

/// Runs a statement that must fail.
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

/// Asserts that each statement breaks the check constraint named beside it.
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

/// Our tables and columns, views and functions that have no comment. The columns of a view are those of what it reads.
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
