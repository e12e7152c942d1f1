//! Statements on stored orders: their ids, checksums and events.

use common::broker::Event;
use common::broker::topology::BUY_ORDER_QUEUE;
use common::buy_order_event::{BuyOrderCreated, BuyOrderVoided};
use common::range_checksum::{self, RangeChecksum};
use sqlx::{FromRow as _, PgConnection, Row as _};
use time::OffsetDateTime;

/// The orders, with the columns that [`range_checksum::of_range`] reads.
const ORDERS: &str = "
    SELECT o.*, currency.iso3 AS currency_iso3, void.reason AS void_reason, void.voided_at
      FROM buy_order AS o
      JOIN currency ON currency.id = o.currency_id
      LEFT JOIN LATERAL (SELECT reason, voided_at FROM buy_order_void WHERE buy_order_id = o.id LIMIT 1) AS void ON true";

/// The ids of all orders at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The lowest id; 1 when there is no order.
    pub first_id: i64,
    /// The highest id; 0 when there is no order.
    pub last_id: i64,
    /// The time, by the clock of the database, in microseconds since 1970.
    pub as_of_epoch_us: i64,
}

common::from_row!(Extent {
    first_id,
    last_id,
    as_of_epoch_us
});

/// The current extent. Every later order has a higher id and is younger, and so is every later void.
pub async fn end(connection: &mut PgConnection) -> sqlx::Result<Extent> {
    // Takes the writers' lock: without it, an order that has its time but is not committed would be older and missing. One message whose
    // statements are one transaction, so that the lock is not held during a network round trip.
    let rows = sqlx::raw_sql(
        // Not min and max: while PostgreSQL's statistics say that the table is empty, they would scan it, and block all writers meanwhile.
        "SELECT lock_running_total();
         SELECT coalesce((SELECT id FROM buy_order ORDER BY id LIMIT 1), 1) AS first_id,
                coalesce((SELECT id FROM buy_order ORDER BY id DESC LIMIT 1), 0) AS last_id,
                (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS as_of_epoch_us",
    )
    .fetch_all(connection)
    .await?;
    Extent::from_row(rows.last().ok_or(sqlx::Error::RowNotFound)?)
}

/// The checksum of up to `max` orders, from id `after` + 1 to the end of the extent at most.
pub async fn next_range(
    connection: &mut PgConnection,
    after: i64,
    extent: Extent,
    max: i64,
) -> sqlx::Result<RangeChecksum> {
    let to_id: Option<i64> = sqlx::query_scalar(
        "SELECT max(id) FROM (SELECT id FROM buy_order WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS range",
    )
    .bind(after)
    .bind(extent.last_id)
    .bind(max)
    .fetch_one(&mut *connection)
    .await?;
    let to_id = to_id.unwrap_or(extent.last_id);
    range_checksum::of_range(connection, ORDERS, after + 1, to_id, extent.as_of_epoch_us).await
}

/// The first and the last id of the orders between these ids, both included, and not older than `since`; nothing when there is none.
pub async fn ids(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
    since: Option<OffsetDateTime>,
) -> sqlx::Result<Option<(i64, i64)>> {
    let row = sqlx::query(
        "SELECT (SELECT id FROM buy_order WHERE id BETWEEN $1 AND $2 AND ($3 IS NULL OR created_at >= $3) ORDER BY id LIMIT 1) AS first,
                (SELECT id FROM buy_order WHERE id BETWEEN $1 AND $2 AND ($3 IS NULL OR created_at >= $3) ORDER BY id DESC LIMIT 1) AS last",
    )
    .bind(from_id)
    .bind(to_id)
    .bind(since)
    .fetch_one(connection)
    .await?;
    let (first, last): (Option<i64>, Option<i64>) = (row.try_get("first")?, row.try_get("last")?);
    Ok(first.zip(last))
}

/// The event of a stored order, to be published again.
#[derive(Debug, Clone)]
pub struct PastEvent {
    /// `buy_order.id`.
    pub id: i64,
    /// The message, the same as for a new order.
    pub event: Event,
}

common::from_row!(PastEvent { id; event });

/// The events of up to `max` orders with ids above `after`, up to `last_id`.
pub async fn events(
    connection: &mut PgConnection,
    after: i64,
    last_id: i64,
    max: i64,
) -> sqlx::Result<Vec<PastEvent>> {
    sqlx::query_as(
        "SELECT placed.id, $4 AS type, $5 AS routing_key, placed.external_id AS message_id, placed.created_at,
                buy_order_created_payload(placed, (SELECT iso3 FROM currency WHERE currency.id = placed.currency_id)) AS payload
           FROM buy_order AS placed
          WHERE placed.id > $1 AND placed.id <= $2
          ORDER BY placed.id
          LIMIT $3",
    )
    .bind(after)
    .bind(last_id)
    .bind(max)
    .bind(BuyOrderCreated::MESSAGE_TYPE)
    .bind(BUY_ORDER_QUEUE)
    .fetch_all(connection)
    .await
}

/// The events of the voids of orders with these ids, both included, that are not older than `since`.
pub async fn void_events(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
    since: Option<OffsetDateTime>,
) -> sqlx::Result<Vec<Event>> {
    // The order is looked up for each void, because the plan of a join, made while the tables were empty, would read them whole.
    sqlx::query_as(
        "SELECT $4 AS type, $5 AS routing_key, void.message_id, void.voided_at AS created_at,
                buy_order_voided_payload(void, (SELECT external_id FROM buy_order WHERE buy_order.id = void.buy_order_id)) AS payload
           FROM buy_order_void AS void
          WHERE void.buy_order_id BETWEEN $1 AND $2 AND ($3 IS NULL OR void.voided_at >= $3)
          ORDER BY void.buy_order_id",
    )
    .bind(from_id)
    .bind(to_id)
    .bind(since)
    .bind(BuyOrderVoided::MESSAGE_TYPE)
    .bind(BUY_ORDER_QUEUE)
    .fetch_all(connection)
    .await
}
