//! Statements on voids, and the mark that a void leaves on its order.

use std::collections::HashSet;

use common::buy_order_event::BuyOrderVoided;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::outcomes::{doubtful, outcomes};
use crate::delivery::ApplyOutcome;

/// Inserts the voids that are not stored, by one statement, and compares the others with what is stored. Whether their orders are stored does not
/// matter.
pub(super) async fn insert_and_compare(
    connection: &mut PgConnection,
    voids: &[&BuyOrderVoided],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    let inserted = insert(connection, voids).await?;
    if inserted.len() == voids.len() {
        return Ok(vec![ApplyOutcome::Applied; voids.len()]);
    }
    let doubtful = doubtful(voids, &inserted);
    let stored = select(connection, &doubtful).await?;
    Ok(outcomes(voids, inserted, |void| compare(void, &stored)))
}

/// Inserts the voids that are not stored, and returns their ids.
async fn insert(connection: &mut PgConnection, voids: &[&BuyOrderVoided]) -> sqlx::Result<HashSet<i64>> {
    let external_ids: Vec<Uuid> = voids.iter().map(|void| void.external_id).collect();
    let reasons: Vec<&str> = voids.iter().map(|void| void.reason.as_str()).collect();
    let times: Vec<OffsetDateTime> = voids.iter().map(|void| void.voided_at).collect();
    let inserted: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO buy_order_void_read_model (id, external_id, reason, voided_at)
         SELECT *
         FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::timestamptz[])
         ON CONFLICT DO NOTHING
         RETURNING id",
    )
    .bind(ids(voids))
    .bind(external_ids)
    .bind(reasons)
    .bind(times)
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

fn ids(voids: &[&BuyOrderVoided]) -> Vec<i64> {
    voids.iter().map(|void| void.id).collect()
}

/// The stored voids that have the id of one of these.
async fn select(
    connection: &mut PgConnection,
    voids: &[&BuyOrderVoided],
) -> sqlx::Result<Vec<BuyOrderVoided>> {
    // A subquery with a limit, for the reason that is given for orders.
    sqlx::query_as(
        "SELECT v.*
         FROM unnest($1::bigint[]) AS asked (asked_id)
         CROSS JOIN LATERAL (
             SELECT id, external_id, reason, voided_at FROM buy_order_void_read_model WHERE id = asked_id LIMIT 1
         ) AS v",
    )
    .bind(ids(voids))
    .fetch_all(connection)
    .await
}

/// The outcome of a void that may have been stored before.
fn compare(void: &BuyOrderVoided, stored: &[BuyOrderVoided]) -> ApplyOutcome {
    let id = void.id;
    match stored.iter().find(|row| row.id == id) {
        Some(row) if row == void => ApplyOutcome::AlreadyApplied,
        Some(_) => ApplyOutcome::Permanent(format!(
            "the void of order {id} is already there, with other content"
        )),
        None => ApplyOutcome::Transient(format!(
            "the void of order {id} was deleted while it was compared"
        )),
    }
}

/// Marks those of these orders that are voided and not marked yet. Writes nothing when there are none.
///
/// Called after the orders or the voids with these ids were committed, also when they were stored before: messages come in any order, and two
/// processes may write an order and its void at the same time. Then at least the one that commits last sees both.
///
/// A void belongs to the order that has both its ids: an id alone may be that of another order, from before the write model was restored from
/// a backup.
///
/// # Errors
/// When the read model is away.
pub async fn mark_voided(connection: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    // No join with the orders that are changed, and no IS NULL, which would allow the index of pages: PostgreSQL keeps the plan, and might read
    // all orders, if it made the plan while the table was empty.
    sqlx::query(
        "UPDATE buy_order_read_model AS o
         SET voided_at = (SELECT v.voided_at FROM buy_order_void_read_model AS v WHERE v.id = o.id LIMIT 1)
         WHERE num_nulls(o.voided_at) = 1 AND o.id = ANY (ARRAY(
             SELECT v.id
             FROM unnest($1::bigint[]) AS asked (asked_id)
             CROSS JOIN LATERAL (SELECT id, external_id FROM buy_order_void_read_model WHERE id = asked_id LIMIT 1) AS v
             CROSS JOIN LATERAL (SELECT external_id, voided_at FROM buy_order_read_model WHERE id = v.id LIMIT 1) AS stored
             WHERE stored.external_id = v.external_id AND stored.voided_at IS NULL
         ))",
    )
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}
