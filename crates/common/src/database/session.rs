//! What our statements rely on in their session: requested when a connection is made, and verified before its first use.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// The settings of every session, whatever the database, the role or the server configure. A session without them is not used.
///
/// - Timeouts: PostgreSQL goes on with a query that we have given up, so the server must end it.
/// - Plans: each statement has one plan that is good for all values, and planning costs more than execution. A plan may be made while a table
///   is nearly empty, when a sequential scan looks cheap; the same plan must not scan the table when it is full. Where a sequential scan is the
///   only way (the one row of a total), its penalty would make PostgreSQL compile the plan at each execution (measured: 20 ms an order), so
///   `jit` is off.
/// - Meaning: which tables a statement sees, what a transaction sees of others, and how values are read and written as text.
///
/// Whether the session may write is not set here: a database is read-only for a reason.
///
/// The values are spelt as PostgreSQL shows them.
pub const SESSION_SETTINGS: [(&str, &str); 12] = [
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    ("search_path", "public"),
    ("default_transaction_isolation", "read committed"),
    ("DateStyle", "ISO, MDY"),
    ("TimeZone", "UTC"),
    ("lc_numeric", "C"),
    ("standard_conforming_strings", "on"),
];

/// The server's side of TCP keepalive. sqlx opens our sockets and gives no access to them, so the server keeps connections alive through
/// firewalls, and ends queries whose client is gone. Behind a pooler they apply to the pooler's connections, so they are not verified.
pub(super) const KEEPALIVE_SETTINGS: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
    ("client_connection_check_interval", "5s"),
];

/// Verifies [`SESSION_SETTINGS`]. If one differs, [`sqlx::Error::Protocol`] tells the operator.
pub(super) async fn check_settings(connection: &mut PgConnection) -> sqlx::Result<()> {
    let wanted = SESSION_SETTINGS.map(|(name, value)| format!("('{name}', '{value}')"));
    let differing = format!(
        "SELECT name, current_setting(name) AS found, wanted FROM (VALUES {}) AS setting (name, wanted) WHERE current_setting(name) <> wanted",
        wanted.join(", ")
    );
    // Not prepared: it runs once for each connection.
    let rows = sqlx::raw_sql(AssertSqlSafe(differing))
        .fetch_all(connection)
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let (mut faults, mut remedies) = (Vec::new(), Vec::new());
    for row in rows {
        let [name, found, wanted] =
            ["name", "found", "wanted"].map(|column| row.try_get::<String, _>(column));
        let (name, found, wanted) = (name?, found?, wanted?);
        faults.push(format!("{name} is '{found}' instead of '{wanted}'"));
        remedies.push(format!("SET {name} = '{wanted}';"));
    }
    Err(sqlx::Error::Protocol(format!(
        "the session is not as it was asked for, so a pooler on the way ignores what it is asked: {}. Have the pooler set it on its \
         connections, as PgBouncer's connect_query does: {} (docs/operations.md, \"Behind PgBouncer\")",
        faults.join(", "),
        remedies.join(" ")
    )))
}

/// Verifies that a prepared statement is still there at its next use. A pooler that lends connections by the transaction may lose it: then
/// [`sqlx::Error::Protocol`] tells the operator. `other` occupies the server's connection that has the statement, so that `session` gets
/// another.
pub(super) async fn check_prepared(session: &mut PgConnection, other: &mut PgConnection) -> sqlx::Result<()> {
    const PROBE: &str = "SELECT 'prepared for ' || $1";
    let mut run_probe = async || sqlx::query(PROBE).bind("a probe").execute(&mut *session).await;
    let mut outcome = run_probe().await;
    if outcome.is_ok() {
        let mut transaction = other.begin().await?;
        sqlx::raw_sql("SELECT").execute(&mut *transaction).await?;
        outcome = run_probe().await;
        transaction.rollback().await?;
    }
    match outcome {
        Err(sqlx::Error::Database(refusal)) => Err(sqlx::Error::Protocol(format!(
            "the pooler on the way loses prepared statements ({refusal}): it has to be PgBouncer 1.21 or later with \
             max_prepared_statements above 0, or to lend connections by the session (docs/operations.md, \"Behind PgBouncer\")"
        ))),
        outcome => outcome.map(drop),
    }
}

/// Adds the remedy to the error of a pooler that does not know our settings.
pub(super) fn explain(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Database(refusal) if refusal.message().starts_with("unsupported startup parameter") => {
            sqlx::Error::Protocol(format!(
                "the pooler on the way says \"{}\": have it ignore options and set on its connections what they ask for \
                 (docs/operations.md, \"Behind PgBouncer\")",
                refusal.message()
            ))
        }
        error => error,
    }
}
