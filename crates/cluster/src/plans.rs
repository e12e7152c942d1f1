//! Plans that PostgreSQL keeps, for tests: made while tables are empty, and followed when they are full. What a plan costs is told by the
//! rows and blocks that it looks at, not by the time it takes.

mod told;

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row as _};
use told::Told;

/// What PostgreSQL knows of the tables when it makes a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// Nothing: the tables were just made.
    None,
    /// That they are empty.
    Empty,
    /// Nothing, and columns were added, which make it expect fewer rows.
    Wide,
    /// That the pages, of which there are many, have one row each; in truth they have none any more.
    Sparse,
    /// The same, but thousands of rows each.
    Dense,
    /// All: the tables are full.
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

    /// Brings the empty tables of a model into this state; `fill` are the statements that fill them. Plans are to be made after it.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn set(self, model: &PgPool, fill: &str) -> anyhow::Result<()> {
        // An autovacuum would have plans made anew.
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
                // Nor do the indexes then lead past dead entries.
                run(model, "VACUUM (TRUNCATE false)").await?;
                let claim = format!(
                    "UPDATE pg_class SET relpages = 1, reltuples = {rows_in_a_page} WHERE oid = '%s'::regclass"
                );
                for_each_table(model, &claim).await
            }
            Self::Full => {
                run(model, fill).await?;
                run(model, "VACUUM ANALYZE").await
            }
        }
    }

    /// Fills the tables, where they are not full yet. Plans that were made before are kept.
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

/// A statement that a service makes, and what it may cost.
#[derive(Debug, Clone)]
pub struct Bounded {
    /// A part of its text that no other statement has.
    pub statement: &'static str,
    /// Its parameters as texts, which are cast to the types that the service declared.
    pub values: Vec<String>,
    /// How many rows it asks for: no step of its plan may look at more than a few times as many.
    pub rows: u64,
}

impl Bounded {
    /// Of a statement with these parameters that asks for so many rows.
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

/// Executes every statement that the service has prepared in this session by its kept plan, and undoes what it did. In the order in which they
/// were prepared: those that only read should come first, as what is undone leaves dead entries in indexes.
///
/// The statements that functions execute meanwhile, by plans of their own, are held to the same bounds. Answers the texts of all that were
/// executed, so that a test can tell that those of its functions were among them.
///
/// # Errors
/// When one looks at more than it may, is not among `bounds`, or is bounded and was not prepared.
pub async fn keep_within(session: &mut PgConnection, bounds: &[Bounded]) -> anyhow::Result<BTreeSet<String>> {
    let prepared = prepared(session).await?;
    told::ask(session).await?;
    let mut texts = BTreeSet::new();
    for bounded in bounds {
        let found = prepared.iter().filter(|one| one.text.contains(bounded.statement));
        ensure!(
            found.count() == 1,
            "not one statement has {:?}",
            bounded.statement
        );
    }
    for statement in &prepared {
        let text = &statement.text;
        let mut of_it = bounds
            .iter()
            .filter(|bounded| text.contains(bounded.statement))
            .peekable();
        ensure!(
            of_it.peek().is_some(),
            "nothing is said of what this may cost: {text}"
        );
        for bounded in of_it {
            let (plan, told) = executed(session, statement, &bounded.values).await?;
            is_within(bounded.rows, text, &plan)?;
            are_within(bounded.rows, &told).with_context(|| format!("within {text}"))?;
            texts.extend(told.into_iter().map(|told| told.text));
        }
    }
    Ok(texts)
}

/// Does work that asks for so many rows, with statements that need not be prepared, and undoes it. Answers their texts.
///
/// # Errors
/// When a statement looks at more than it may, or fails.
pub async fn keep_work_within<T>(
    session: &mut PgConnection,
    rows: u64,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> anyhow::Result<Vec<String>> {
    told::ask(session).await?;
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let (done, told) = told::during(work(session)).await?;
    done?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
    are_within(rows, &told)?;
    for told in &told {
        is_within(rows, &told.text, &told.plan)?;
    }
    Ok(told.into_iter().map(|told| told.text).collect())
}

fn is_within(rows: u64, text: &str, plan: &Value) -> anyhow::Result<()> {
    let looked_at = most_looked_at(plan);
    let blocks = number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks");
    ensure!(
        looked_at <= rows * LOOKED_AT_EACH && blocks <= rows * BLOCKS_EACH + BLOCKS,
        "for {rows} rows a step looks at {looked_at}, and {blocks} blocks are read: {text}\n{plan:#}"
    );
    Ok(())
}

/// Each by itself, and all together: one that is executed once for each row must not look at all rows each time. Their blocks are counted by
/// the statement that they are within.
fn are_within(rows: u64, told: &[Told]) -> anyhow::Result<()> {
    ensure!(!told.is_empty(), "PostgreSQL told nothing");
    let mut together = 0;
    for Told { text, plan } in told {
        let looked_at = most_looked_at(plan);
        ensure!(
            looked_at <= rows * LOOKED_AT_EACH,
            "for {rows} rows a step looks at {looked_at}: {text}\n{plan:#}"
        );
        together += looked_at;
    }
    ensure!(
        together <= rows * LOOKED_AT_TOGETHER_EACH,
        "for {rows} rows {} statements look at {together}",
        told.len()
    );
    Ok(())
}

/// Executes the one statement that the service has prepared in this session by its kept plan, undoes what it did, and answers the plan with
/// what each step did.
///
/// # Errors
/// When there is not one statement, or the database refuses.
pub async fn followed(session: &mut PgConnection, values: &[&str]) -> anyhow::Result<Value> {
    let prepared = prepared(session).await?;
    let [statement] = prepared.as_slice() else {
        anyhow::bail!("{} statements are prepared", prepared.len())
    };
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    told::ask(session).await?;
    Ok(executed(session, statement, &values).await?.0)
}

/// Rows that one step of a plan may look at for each that was asked for.
const LOOKED_AT_EACH: u64 = 8;

/// Rows for each, of all statements that are executed within one.
const LOOKED_AT_TOGETHER_EACH: u64 = 4 * LOOKED_AT_EACH;

/// Blocks for each row: the way down several indexes, for those that are read and those that are written.
const BLOCKS_EACH: u64 = 60;

/// Blocks besides, far fewer than an index of the full tables has.
const BLOCKS: u64 = 60;

async fn executed(
    session: &mut PgConnection,
    statement: &Prepared,
    values: &[String],
) -> anyhow::Result<(Value, Vec<Told>)> {
    let Prepared { name, types, .. } = statement;
    ensure!(types.len() == values.len(), "it takes {types:?}, not {values:?}");
    let parameters: Vec<String> = values
        .iter()
        .zip(types)
        .map(|(value, kind)| format!("'{value}'::{kind}"))
        .collect();
    let parameters = if parameters.is_empty() {
        String::new()
    } else {
        format!("({})", parameters.join(", "))
    };
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE \"{name}\" {parameters}");
    let explained = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *session);
    let (explained, told) = told::during(explained).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *session).await?;
    let text: String = explained
        .with_context(|| statement.text.clone())?
        .try_get_unchecked(0)?;
    let plans: Value = serde_json::from_str(&text)?;
    ensure!(plans.pointer("/0/JIT").is_none(), "compiled: {plans:#}");
    let plan = plans.pointer("/0/Plan").cloned().context("no plan")?;
    Ok((plan, told))
}

/// A number of a step of a plan, in whole rows or blocks, as newer servers write rows with decimals; 0 where it has none.
#[must_use]
pub fn number(plan: &Value, name: &str) -> u64 {
    let text = plan.get(name).map(Value::to_string).unwrap_or_default();
    text.split('.')
        .next()
        .and_then(|whole| whole.parse().ok())
        .unwrap_or_default()
}

/// The most rows that a step of the plan has looked at.
fn most_looked_at(plan: &Value) -> u64 {
    let removed = [
        "Rows Removed by Filter",
        "Rows Removed by Join Filter",
        "Rows Removed by Index Recheck",
    ];
    let removed: u64 = removed.iter().map(|name| number(plan, name)).sum();
    let own = (number(plan, "Actual Rows") + removed) * number(plan, "Actual Loops");
    let steps = plan.get("Plans").and_then(Value::as_array);
    steps
        .into_iter()
        .flatten()
        .map(most_looked_at)
        .fold(own, u64::max)
}
