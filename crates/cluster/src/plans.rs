//! Tests of plans that PostgreSQL keeps: made while tables are empty, and used when they are full. The cost of a plan is the number of rows
//! and blocks that it reads, not the time that it takes.

mod auto_explain;

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use auto_explain::Executed;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};

/// The statistics that PostgreSQL has when it makes a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// None: the tables were just created.
    None,
    /// The tables are empty.
    Empty,
    /// None, with wide columns added, which make PostgreSQL expect fewer rows.
    Wide,
    /// Many pages with one row each. In fact the pages are empty.
    Sparse,
    /// Many pages with thousands of rows each. In fact the pages are empty.
    Dense,
    /// Correct, for full tables.
    Full,
}

impl Statistics {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Empty,
        Self::Wide,
        Self::Sparse,
        Self::Dense,
        Self::Full,
    ];

    /// Brings the empty tables of a model into this state. `fill` are the statements that fill them. Plans must be made after this.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn set(self, model: &PgPool, fill: &str) -> anyhow::Result<()> {
        // An autovacuum would invalidate plans.
        for_each_table(model, "ALTER TABLE %s SET (autovacuum_enabled = off)").await?;
        match self {
            Self::None => Ok(()),
            Self::Empty => run(model, "ANALYZE").await,
            Self::Wide => {
                for_each_table(
                    model,
                    "ALTER TABLE %s ADD COLUMN note varchar(140), ADD COLUMN filler char(500)",
                )
                .await
            }
            Self::Sparse | Self::Dense => {
                let rows_in_a_page = if self == Self::Sparse { 1 } else { 10_000 };
                run(model, &format!("BEGIN; {fill}; ROLLBACK")).await?;
                // Also removes dead entries from the indexes.
                run(model, "VACUUM (TRUNCATE false)").await?;
                let pretend = format!(
                    "UPDATE pg_class SET relpages = 1, reltuples = {rows_in_a_page} WHERE oid = '%s'::regclass"
                );
                for_each_table(model, &pretend).await
            }
            Self::Full => {
                run(model, fill).await?;
                run(model, "VACUUM ANALYZE").await
            }
        }
    }

    /// Fills the tables unless they are full. Plans that were made before are kept.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fill(self, model: &PgPool, fill: &str) -> anyhow::Result<()> {
        match self {
            Self::Full => Ok(()),
            _ => run(model, fill).await,
        }
    }
}

async fn run(model: &PgPool, statements: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(model)
        .await?;
    Ok(())
}

async fn for_each_table(model: &PgPool, statement: &str) -> anyhow::Result<()> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regclass::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'refinery_schema_history'",
    )
    .fetch_all(model)
    .await?;
    ensure!(!tables.is_empty(), "there is no table");
    for table in tables {
        run(model, &statement.replace("%s", &table)).await?;
    }
    Ok(())
}

/// A statement of a service, and its maximum cost.
#[derive(Debug, Clone)]
pub struct Bounded {
    /// A part of its text that no other statement has.
    pub statement: &'static str,
    /// The parameters as texts, which are cast to the types that the service declared; `NULL` for null.
    pub values: Vec<String>,
    /// The number of rows that it asks for. No step of its plan may read more than a few times as many.
    pub rows: u64,
}

impl Bounded {
    /// A statement with these parameters that asks for this many rows.
    #[must_use]
    pub fn new(statement: &'static str, values: &[&str], rows: u64) -> Self {
        Self {
            statement,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            rows,
        }
    }
}

/// A statement that a service has prepared in a session.
struct Prepared {
    name: String,
    text: String,
    types: Vec<String>,
}

async fn prepared(session: &mut PgConnection) -> anyhow::Result<Vec<Prepared>> {
    let rows: Vec<(String, String, Vec<String>)> = sqlx::query_as(
        "SELECT name, statement, parameter_types::text[] FROM pg_prepared_statements
         WHERE statement NOT LIKE '%pg_prepared_statements%' ORDER BY prepare_time",
    )
    .persistent(false)
    .fetch_all(session)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(name, text, types)| Prepared { name, text, types })
        .collect())
}

/// Executes every statement that the service has prepared in this session with its kept plan, and rolls it back. They run in the order in
/// which they were prepared: those that only read should come first, because a rollback leaves dead entries in indexes.
///
/// The statements within functions have the same bounds. Returns the texts of all executed statements within functions, so that a test can
/// check that they were executed.
///
/// # Errors
/// When a statement reads more than allowed, is not among `bounds`, or is among them and was not prepared.
pub async fn keep_within(session: &mut PgConnection, bounds: &[Bounded]) -> anyhow::Result<BTreeSet<String>> {
    let prepared = prepared(session).await?;
    auto_explain::enable(session).await?;
    let mut texts = BTreeSet::new();
    for bounded in bounds {
        let matching = prepared.iter().filter(|one| one.text.contains(bounded.statement));
        ensure!(
            matching.count() == 1,
            "not exactly one statement contains {:?}",
            bounded.statement
        );
    }
    for statement in &prepared {
        let text = &statement.text;
        let mut its_bounds = bounds
            .iter()
            .filter(|bounded| text.contains(bounded.statement))
            .peekable();
        ensure!(its_bounds.peek().is_some(), "this statement has no bound: {text}");
        for bounded in its_bounds {
            let (plan, executed) = execute(session, statement, &bounded.values).await?;
            is_within(bounded.rows, text, &plan)?;
            are_within(bounded.rows, &executed).with_context(|| format!("within {text}"))?;
            texts.extend(executed.into_iter().map(|statement| statement.text));
        }
    }
    Ok(texts)
}

/// Does work that asks for this many rows, with statements that need not be prepared, and rolls it back. Returns their texts.
///
/// # Errors
/// When a statement reads more than allowed, or fails.
pub async fn keep_work_within<T>(
    session: &mut PgConnection,
    rows: u64,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> anyhow::Result<Vec<String>> {
    auto_explain::enable(session).await?;
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let (done, executed) = auto_explain::capture(work(session)).await?;
    done?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
    are_within(rows, &executed)?;
    for statement in &executed {
        is_within(rows, &statement.text, &statement.plan)?;
    }
    Ok(executed.into_iter().map(|statement| statement.text).collect())
}

fn is_within(rows: u64, text: &str, plan: &Value) -> anyhow::Result<()> {
    let rows_read = max_rows_read(plan);
    let blocks = number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks");
    ensure!(
        rows_read <= rows * MAX_READ_PER_ROW && blocks <= rows * MAX_BLOCKS_PER_ROW + MAX_FIXED_BLOCKS,
        "for {rows} rows a step reads {rows_read} rows, and {blocks} blocks are read: {text}\n{plan:#}"
    );
    Ok(())
}

/// Checks each statement, and their sum: one that is executed once per row must not read all rows each time. The blocks are counted in the
/// outer statement.
fn are_within(rows: u64, executed: &[Executed]) -> anyhow::Result<()> {
    ensure!(!executed.is_empty(), "PostgreSQL sent no plans");
    let mut sum = 0;
    for Executed { text, plan } in executed {
        let rows_read = max_rows_read(plan);
        ensure!(
            rows_read <= rows * MAX_READ_PER_ROW,
            "for {rows} rows a step reads {rows_read}: {text}\n{plan:#}"
        );
        sum += rows_read;
    }
    ensure!(
        sum <= rows * MAX_SUM_READ_PER_ROW,
        "for {rows} rows {} statements read {sum}",
        executed.len()
    );
    Ok(())
}

/// Executes the only statement that the service has prepared in this session with its kept plan, and rolls it back. Returns the plan with the
/// actual rows and blocks of each step.
///
/// # Errors
/// When there is not exactly one statement, or the database refuses.
pub async fn explain_prepared(session: &mut PgConnection, values: &[&str]) -> anyhow::Result<Value> {
    let prepared = prepared(session).await?;
    let [statement] = prepared.as_slice() else {
        anyhow::bail!("{} statements are prepared", prepared.len())
    };
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    auto_explain::enable(session).await?;
    Ok(execute(session, statement, &values).await?.0)
}

/// Rows that one step of a plan may read per requested row.
const MAX_READ_PER_ROW: u64 = 8;

/// Rows that all statements within one may read per requested row.
const MAX_SUM_READ_PER_ROW: u64 = 4 * MAX_READ_PER_ROW;

/// Blocks per requested row: the path down several indexes, for rows that are read and rows that are written.
const MAX_BLOCKS_PER_ROW: u64 = 60;

/// Additional blocks, far fewer than an index of the full tables has.
const MAX_FIXED_BLOCKS: u64 = 60;

async fn execute(
    session: &mut PgConnection,
    statement: &Prepared,
    values: &[String],
) -> anyhow::Result<(Value, Vec<Executed>)> {
    let Prepared { name, types, .. } = statement;
    ensure!(types.len() == values.len(), "it takes {types:?}, not {values:?}");
    let parameters: Vec<String> = values
        .iter()
        .zip(types)
        .map(|(value, kind)| match value.as_str() {
            "NULL" => format!("NULL::{kind}"),
            value => format!("'{value}'::{kind}"),
        })
        .collect();
    let parameters = if parameters.is_empty() {
        String::new()
    } else {
        format!("({})", parameters.join(", "))
    };
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE \"{name}\" {parameters}");
    let explained = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *session);
    let (explained, executed) = auto_explain::capture(explained).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
    let text: String = explained
        .with_context(|| statement.text.clone())?
        .try_get_unchecked(0)?;
    let plans: Value = serde_json::from_str(&text)?;
    ensure!(plans.pointer("/0/JIT").is_none(), "compiled: {plans:#}");
    let plan = plans.pointer("/0/Plan").cloned().context("no plan")?;
    Ok((plan, executed))
}

/// A number of rows or blocks of a plan's step, without decimals, which newer servers write. 0 if it is missing.
#[must_use]
pub fn number(plan: &Value, name: &str) -> u64 {
    let text = plan.get(name).map(Value::to_string).unwrap_or_default();
    text.split('.')
        .next()
        .and_then(|whole| whole.parse().ok())
        .unwrap_or_default()
}

/// The maximum number of rows that one step of the plan has read.
fn max_rows_read(plan: &Value) -> u64 {
    let removed = [
        "Rows Removed by Filter",
        "Rows Removed by Join Filter",
        "Rows Removed by Index Recheck",
    ];
    let removed: u64 = removed.iter().map(|name| number(plan, name)).sum();
    let own = (number(plan, "Actual Rows") + removed) * number(plan, "Actual Loops");
    let steps = plan.get("Plans").and_then(Value::as_array);
    steps.into_iter().flatten().map(max_rows_read).fold(own, u64::max)
}
