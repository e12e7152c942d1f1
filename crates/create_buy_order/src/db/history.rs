//! Orders long written: where they begin and end, and what they sum up to.

use common::broker::Event;
use common::broker::topology::BUY_ORDER_QUEUE;
use common::buy_order_event::MESSAGE_TYPE;
use common::range_checksum::{self, RangeChecksum};
use sqlx::{FromRow as _, PgConnection};
use time::OffsetDateTime;

/// An order with all that the read model keeps of it.
const ORDERS: &str = "
    SELECT o.id, o.client_id, o.external_id, o.created_at, o.currency_id, currency.iso3 AS currency_iso3, o.currency_amount, o.btc_rate,
           o.btc_amount
      FROM buy_order AS o JOIN currency ON currency.id = o.currency_id";

/// The orders at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
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
    // Under the writers' lock: an order that has drawn its time but is not committed yet would be older, and not seen. One message, whose
    // statements are one transaction, so that the lock is not held while a network is waited for.
    let rows = sqlx::raw_sql(
        // Not by min and max: where PostgreSQL's statistics say that the table is empty, it would read all of it, while no order can be written.
        "SELECT FROM buy_order_running_total FOR UPDATE;
         SELECT coalesce((SELECT id FROM buy_order ORDER BY id LIMIT 1), 1) AS first_id,
                coalesce((SELECT id FROM buy_order ORDER BY id DESC LIMIT 1), 0) AS last_id,
                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS as_of_epoch_us",
    )
    .fetch_all(connection)
    .await?;
    rows.last()
        .ok_or(sqlx::Error::RowNotFound)
        .and_then(Extent::from_row)
}

/// The checksum of up to `max` orders from the id `after` + 1 on, through `last_id` at most.
///
/// # Errors
/// When the database is away.
pub async fn next_range(
    connection: &mut PgConnection,
    after: i64,
    last_id: i64,
    max: i64,
) -> sqlx::Result<RangeChecksum> {
    let to_id: Option<i64> = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM buy_order WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS range",
    )
    .bind(after)
    .bind(last_id)
    .bind(max)
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

/// An order that is told of once more.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PastEvent {
    /// `buy_order.id`.
    pub id: i64,
    /// What to publish, as when the order was new.
    #[sqlx(flatten)]
    pub event: Event,
}

/// The events of up to `max` orders whose ids follow `after`, through `last_id`.
///
/// # Errors
/// When the database is away.
pub async fn events(
    connection: &mut PgConnection,
    after: i64,
    last_id: i64,
    max: i64,
) -> sqlx::Result<Vec<PastEvent>> {
    sqlx::query_as(
        "SELECT placed.id, $4 AS type, $5 AS routing_key, placed.external_id AS message_id,
                buy_order_created_payload(placed, (SELECT iso3 FROM currency WHERE currency.id = placed.currency_id)) AS payload
           FROM buy_order AS placed
          WHERE placed.id > $1 AND placed.id <= $2
          ORDER BY placed.id
          LIMIT $3",
    )
    .bind(after)
    .bind(last_id)
    .bind(max)
    .bind(MESSAGE_TYPE)
    .bind(BUY_ORDER_QUEUE)
    .fetch_all(connection)
    .await
}
