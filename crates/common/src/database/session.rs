//! What our statements rely on in their session: asked for when a connection is made, and looked at before its first use.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

/// What every session has, whatever the database, the role or the server say. A session that has not is not used.
///
/// Limits that the server keeps for us, because a query that is given up here goes on there; and its plans. Each statement has one good plan
/// for all values, and making it again costs more than following it. It may be made when a table is nearly empty, and reading that from end
/// to end looks cheap: it must not be read so when it is full. The price that PostgreSQL sets on reading so, where there is no other way (the
/// one row of a total), would make it compile a plan each time it is followed (measured: 20 ms an order).
///
/// Then what statements mean: which tables they see, what a transaction sees of others, and how values are read and written as text. Who may
/// not write is not among it: a database that is read-only is so for a reason.
///
/// Values are written as PostgreSQL shows them.
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

/// The server's side of our sockets. sqlx opens ours and hands out no access to it, so the server keeps the connection known to what is on
/// the way, and ends what waits for a client that is gone. Behind a pooler these are of its own connections: nobody looks at them.
pub(super) const UPKEEP: [(&str, &str); 5] = [
    ("tcp_keepalives_idle", "20"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30000"),
    ("client_connection_check_interval", "5s"),
];

/// Whether the session is as it was asked for.
///
/// # Errors
/// [`sqlx::Error::Protocol`] with a sentence for the operator where it is not.
pub(super) async fn check(connection: &mut PgConnection) -> sqlx::Result<()> {
    let wanted: Vec<String> = SESSION_SETTINGS
        .iter()
        .map(|(name, value)| format!("('{name}', '{value}')"))
        .collect();
    let differing = format!(
        "SELECT name, current_setting(name), wanted FROM (VALUES {}) AS setting (name, wanted) WHERE current_setting(name) <> wanted",
        wanted.join(", ")
    );
    // Not prepared: it is asked once in the life of a connection.
    let rows = sqlx::raw_sql(AssertSqlSafe(differing))
        .fetch_all(connection)
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let (mut faults, mut remedy) = (Vec::new(), String::new());
    for row in rows {
        let [name, found, wanted]: [String; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        faults.push(format!("{name} is '{found}' instead of '{wanted}'"));
        // Writing to a string does not fail.
        let _ = write!(remedy, " SET {name} = '{wanted}';");
    }
    Err(sqlx::Error::Protocol(format!(
        "the session is not as it was asked for, so a pooler on the way ignores what it is asked: {}. Have the pooler set it on its \
         connections, as PgBouncer's connect_query does:{remedy} (docs/operations.md, \"Behind PgBouncer\")",
        faults.join(", ")
    )))
}

/// Whether what one session has prepared is there when it is used next. Behind a pooler that lends connections by the transaction it may not
/// be: `other` holds the connection that has it, so that `session` gets another.
///
/// # Errors
/// [`sqlx::Error::Protocol`] with a sentence for the operator where it is not.
pub(super) async fn check_prepared(session: &mut PgConnection, other: &mut PgConnection) -> sqlx::Result<()> {
    const PROBE: &str = "SELECT 'prepared for ' || $1";
    let mut ask = async || sqlx::query(PROBE).bind("a probe").execute(&mut *session).await;
    let mut asked = ask().await;
    if asked.is_ok() {
        let mut transaction = other.begin().await?;
        sqlx::raw_sql("SELECT").execute(&mut *transaction).await?;
        asked = ask().await;
        transaction.rollback().await?;
    }
    match asked {
        Err(sqlx::Error::Database(refusal)) => Err(sqlx::Error::Protocol(format!(
            "the pooler on the way loses prepared statements ({refusal}): it has to be PgBouncer 1.21 or later with \
             max_prepared_statements above 0, or to lend connections by the session (docs/operations.md, \"Behind PgBouncer\")"
        ))),
        outcome => outcome.map(drop),
    }
}

/// What a pooler says that does not know our settings, with what to do about it.
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
