//! The lease of the relay: one row that says which relay works, and until when. Only the database sets and compares its times, so that the
//! clocks of services do not matter.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

/// Takes or renews the lease for `term` from now on. Returns whether it is `holder`'s.
///
/// A lease that would last longer than two terms counts as free: the clock of the database was set back.
pub async fn hold(connection: &mut PgConnection, holder: Uuid, term: Duration) -> sqlx::Result<bool> {
    let held = sqlx::query(
        "UPDATE relay_lease
            SET holder = $1, held_until = clock_timestamp() + make_interval(secs => $2)
          WHERE holder = $1
             OR held_until < clock_timestamp()
             OR held_until > clock_timestamp() + 2 * make_interval(secs => $2)",
    )
    .bind(holder)
    .bind(term.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(held.rows_affected() == 1)
}

/// Frees the lease, if it is `holder`'s. If this fails, the lease ends by itself.
pub async fn release(connection: &mut PgConnection, holder: Uuid) -> sqlx::Result<()> {
    sqlx::query("UPDATE relay_lease SET holder = NULL, held_until = 'epoch' WHERE holder = $1")
        .bind(holder)
        .execute(connection)
        .await
        .map(drop)
}
