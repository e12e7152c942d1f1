//! Sessions and locks of a database, for tests that end, block and observe them.

use std::time::Duration;

use anyhow::ensure;
use sqlx::{PgPool, Postgres, Transaction};

use crate::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

/// Ends every session of the pool's database except those of `migration` and the one that asks, and waits until they are gone.
///
/// # Errors
/// When there is no such session, or one is not gone within a minute.
pub async fn end_sessions(database: &PgPool) -> anyhow::Result<()> {
    let mut connection = database.acquire().await?;
    let ended: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'migration' AND pid <> pg_backend_pid()",
    )
    .fetch_all(&mut *connection)
    .await?;
    ensure!(!ended.is_empty(), "there is no session to end");
    sqlx::query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid")
        .bind(&ended)
        .execute(&mut *connection)
        .await?;
    wait_until("the sessions are gone", LIMIT, async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)")
            .bind(&ended)
            .fetch_one(&mut *connection)
            .await?;
        Ok(left == 0)
    })
    .await
}

/// The process ids of the sessions in the pool's database that wait for a lock in a statement with this text.
///
/// # Errors
/// When the database is away.
pub async fn blocked_sessions(database: &PgPool, statement: &str) -> sqlx::Result<Vec<i32>> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, $1) > 0 AND pid <> pg_backend_pid()",
    )
    .bind(statement)
    .fetch_all(database)
    .await
}

/// Locks the running total until the transaction ends: meanwhile no order can be written.
///
/// # Errors
/// When the database is away.
pub async fn lock_running_total(write_model: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = write_model.begin().await?;
    sqlx::query("SELECT FROM buy_order_running_total FOR UPDATE")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}
