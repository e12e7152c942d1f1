//! Orders long written: where they begin and end, and what they sum up to.

use common::range_checksum::{self, RangeChecksum};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::Locked;

/// An order with all that the read model keeps of it.
const ORDERS: &str = "
    SELECT o.id, o.client_id, o.external_id, o.created_at, o.currency_id, currency.iso3 AS currency_iso3, o.currency_amount, o.btc_rate,
           o.btc_amount
      FROM buy_order AS o JOIN currency ON currency.id = o.currency_id";

/// The orders at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The lowest id; 1 where there is no order.
    pub first_id: i64,
    /// The highest id; 0 where there is no order.
    pub last_id: i64,
    /// The moment, by the clock of the database, in microseconds since 1970.
    pub as_of_epoch_us: i64,
}

/// How far the orders go now. Every later order has a higher id and is younger.
///
/// # Errors
/// When the database is away.
pub async fn end(connection: &mut PgConnection) -> sqlx::Result<Extent> {
    // Under the writers' lock: an order that has drawn its time but is not committed yet would be older, and not seen.
    let mut locked = Locked::begin(connection).await?;
    let (first_id, last_id, as_of_epoch_us) = sqlx::query_as(
        // Not by min and max: where PostgreSQL takes the table for empty, it would read all of it, while no order can be written.
        "SELECT coalesce((SELECT id FROM buy_order ORDER BY id LIMIT 1), 1),
                coalesce((SELECT id FROM buy_order ORDER BY id DESC LIMIT 1), 0),
                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    )
    .fetch_one(locked.connection())
    .await?;
    locked.rollback().await?;
    Ok(Extent {
        first_id,
        last_id,
        as_of_epoch_us,
    })
}

/// The checksum of up to `most` orders from the id `after` + 1 on, through `last_id` at most.
///
/// # Errors
/// When the database is away.
pub async fn next_range(
    connection: &mut PgConnection,
    after: i64,
    last_id: i64,
    most: i64,
) -> sqlx::Result<RangeChecksum> {
    let to_id: Option<i64> = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM buy_order WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS range",
    )
    .bind(after)
    .bind(last_id)
    .bind(most)
    .fetch_one(&mut *connection)
    .await?;
    range_checksum::of_range(connection, ORDERS, after + 1, to_id.unwrap_or(last_id)).await
}

/// The first and the last id of the orders between these ids, both included, and not older than `since`; nothing where there is none.
///
/// # Errors
/// When the database is away.
pub async fn ids(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
    since: Option<OffsetDateTime>,
) -> sqlx::Result<Option<(i64, i64)>> {
    let ids: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT id FROM buy_order WHERE id BETWEEN $1 AND $2 AND ($3 IS NULL OR created_at >= $3) ORDER BY id LIMIT 1),
                (SELECT id FROM buy_order WHERE id BETWEEN $1 AND $2 AND ($3 IS NULL OR created_at >= $3) ORDER BY id DESC LIMIT 1)",
    )
    .bind(from_id)
    .bind(to_id)
    .bind(since)
    .fetch_one(connection)
    .await?;
    Ok(ids.0.zip(ids.1))
}
