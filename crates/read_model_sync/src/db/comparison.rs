//! Statements of `verify`.

use common::range_checksum::{self, RangeChecksum};
use sqlx::PgConnection;

/// The orders, with the columns that [`range_checksum::of_range`] reads. The reason is looked up for each voided order, because a join might read
/// all voids.
const ORDERS: &str = "
    SELECT o.*,
           CASE WHEN o.voided_at IS NOT NULL
                THEN (SELECT v.reason FROM buy_order_void_read_model AS v WHERE v.id = o.id AND v.external_id = o.external_id LIMIT 1)
           END AS void_reason
      FROM buy_order_read_model AS o";

/// The checksum of the rows of a range of ids, both ends included, with their voids until `voids_to_epoch_us`.
///
/// # Errors
/// When the database is away.
pub async fn checksum(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
    voids_to_epoch_us: i64,
) -> sqlx::Result<RangeChecksum> {
    range_checksum::of_range(connection, ORDERS, from_id, to_id, voids_to_epoch_us).await
}

/// Rows outside of all ranges of the write model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRows {
    /// Rows that the write model would have if it had made them.
    pub older: i64,
    /// The first ten ids of these.
    pub first_ids: Vec<i64>,
    /// How many of these have an id that the write model has not reached yet.
    pub beyond: i64,
    /// Rows that may be orders accepted since the checksums.
    pub younger: i64,
    /// The highest id of all rows, also inside the ranges; 0 when there is none.
    pub last_id: i64,
}

common::from_row!(ExtraRows {
    older,
    first_ids,
    beyond,
    younger,
    last_id
});

/// The rows outside of `first_id` to `last_id`, both included. `as_of_epoch_us`, in microseconds since 1970, divides them: orders that the
/// write model makes after `last_id` are younger.
///
/// # Errors
/// When the database is away.
pub async fn extra_rows(
    connection: &mut PgConnection,
    first_id: i64,
    last_id: i64,
    as_of_epoch_us: i64,
) -> sqlx::Result<ExtraRows> {
    sqlx::query_as(
        "WITH outside AS (
             SELECT id, id > $2 AND extract(epoch FROM created_at) * 1000000 > $3 AS younger
             FROM buy_order_read_model
             WHERE id < $1 OR id > $2
         )
         SELECT count(*) FILTER (WHERE NOT younger) AS older,
                ARRAY(SELECT id FROM outside WHERE NOT younger ORDER BY id LIMIT 10) AS first_ids,
                count(*) FILTER (WHERE NOT younger AND id > $2) AS beyond,
                count(*) FILTER (WHERE younger) AS younger,
                coalesce((SELECT id FROM buy_order_read_model ORDER BY id DESC LIMIT 1), 0) AS last_id
         FROM outside",
    )
    .bind(first_id)
    .bind(last_id)
    .bind(as_of_epoch_us)
    .fetch_one(connection)
    .await
}
