//! The outbox: events of committed orders that the broker has not confirmed yet.
//!
//! Each function is one statement that commits by itself: no lock is held while a relay talks to the broker.
//!
//! A claim is told from every other one of the same row by the time until which it holds, to the microsecond. That time is drawn and
//! compared by the database alone, so that no clock of ours matters; whoever comes back with one that is no longer in the row, changes
//! nothing.

use std::time::Duration;

use common::buy_order_event::BuyOrderCreated;
use common::money::MoneyError;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::metrics::Standing;

/// An event that this relay has claimed, with its place in the outbox.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// `outbox.id`.
    pub id: i64,
    /// What happened.
    pub event: BuyOrderCreated,
    /// The trace context of the request that made the order.
    pub traceparent: Option<String>,
    /// What other tracers keep of it.
    pub tracestate: Option<String>,
    /// Until when it is claimed; the same for all that were claimed together.
    pub claimed_until: OffsetDateTime,
}

type ClaimedRow = (
    i64,
    Option<String>,
    Option<String>,
    OffsetDateTime,
    i64,
    i64,
    Uuid,
    OffsetDateTime,
    i64,
    String,
    Decimal,
    Decimal,
    Decimal,
);

/// Claims the oldest `$1` free events for `$2` seconds.
///
/// Relays that come at the same time skip each other's rows instead of queueing for them. Rows are found by arrays and by subqueries with a
/// limit, not by joins: PostgreSQL has the outbox for empty, as it nearly always is, and keeps a plan by which a backlog would be joined
/// with itself (measured: 8 s for 1,000 of 48,000 events).
///
/// A claim that goes on for longer than any claim lasts is void: the clock of the database was set back since. Twice as long, because clocks
/// are set back by a little, too, and a claim that is taken from a relay at work publishes its events twice.
pub const CLAIM: &str = "
    WITH claimed AS (
        UPDATE outbox
        SET claimed_until = statement_timestamp() + make_interval(secs => $2)
        WHERE id = ANY (ARRAY(
            SELECT id
            FROM outbox
            WHERE claimed_until IS NULL OR claimed_until < clock_timestamp()
               OR claimed_until > clock_timestamp() + 2 * make_interval(secs => $2)
            ORDER BY id
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING id, buy_order_id, traceparent, tracestate, claimed_until
    )
    SELECT claimed.id, claimed.traceparent, claimed.tracestate, claimed.claimed_until, made.*
    FROM claimed
    CROSS JOIN LATERAL (
        SELECT buy_order.id, buy_order.client_id, buy_order.external_id, buy_order.created_at,
               buy_order.currency_id, currency.iso3, buy_order.currency_amount, buy_order.btc_rate, buy_order.btc_amount
        FROM buy_order
        JOIN currency ON currency.id = buy_order.currency_id
        WHERE buy_order.id = claimed.buy_order_id
        LIMIT 1
    ) AS made
    ORDER BY claimed.id";

/// Claims the oldest free events for as long as the lease: no other relay takes them until it is over, and if this one dies, they are free
/// again then.
///
/// # Errors
/// When the database is away, or holds an order that no event can be made of.
pub async fn claim(connection: &mut PgConnection, most: i64, lease: Duration) -> sqlx::Result<Vec<Claimed>> {
    let rows: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
        .bind(most)
        .bind(lease.as_secs_f64())
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(claimed).collect()
}

fn claimed(row: ClaimedRow) -> sqlx::Result<Claimed> {
    let (
        id,
        traceparent,
        tracestate,
        claimed_until,
        order_id,
        client_id,
        external_id,
        created_at,
        currency_id,
        iso3,
        amount,
        rate,
        btc,
    ) = row;
    let event = BuyOrderCreated {
        id: order_id,
        client_id,
        external_id,
        created_at,
        currency_id,
        currency_iso3: iso3,
        currency_amount: amount.try_into().map_err(undecodable)?,
        btc_rate: rate.try_into().map_err(undecodable)?,
        btc_amount: btc.try_into().map_err(undecodable)?,
    };
    Ok(Claimed {
        id,
        event,
        traceparent,
        tracestate,
        claimed_until,
    })
}

fn undecodable(error: MoneyError) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// Makes a claim last as long as a new one. The new end of those rows that were still claimed until `claimed_until`, and how many they are;
/// nothing when there are none.
///
/// # Errors
/// When the database is away: then it is not known whether the claim lasts longer now.
pub async fn renew(
    connection: &mut PgConnection,
    ids: &[i64],
    claimed_until: OffsetDateTime,
    lease: Duration,
) -> sqlx::Result<Option<(OffsetDateTime, i64)>> {
    let (until, rows): (Option<OffsetDateTime>, i64) = sqlx::query_as(
        "WITH renewed AS (
             UPDATE outbox
             SET claimed_until = statement_timestamp() + make_interval(secs => $3)
             WHERE id = ANY($1) AND claimed_until = $2
             RETURNING claimed_until
         )
         SELECT max(claimed_until), count(*) FROM renewed",
    )
    .bind(ids)
    .bind(claimed_until)
    .bind(lease.as_secs_f64())
    .fetch_one(connection)
    .await?;
    Ok(until.map(|until| (until, rows)))
}

/// Removes events that the broker has confirmed, and are still claimed until `claimed_until`; answers how many.
///
/// # Errors
/// When the database is away: the events will be published once more when their lease is over, which consumers bear.
pub async fn remove(
    connection: &mut PgConnection,
    ids: &[i64],
    claimed_until: OffsetDateTime,
) -> sqlx::Result<u64> {
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1) AND claimed_until = $2")
        .bind(ids)
        .bind(claimed_until)
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
}

/// Gives events that are still claimed until `claimed_until` back before that.
///
/// # Errors
/// When the database is away: then they are free when their lease is over.
pub async fn release(
    connection: &mut PgConnection,
    ids: &[i64],
    claimed_until: OffsetDateTime,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE outbox SET claimed_until = NULL WHERE id = ANY($1) AND claimed_until = $2")
        .bind(ids)
        .bind(claimed_until)
        .execute(connection)
        .await
        .map(drop)
}

/// Events of orders that are in the outbox once more.
#[derive(Debug, Clone, Copy)]
pub struct AddedAgain {
    /// How many.
    pub orders: i64,
    /// `buy_order.id` of the last.
    pub last_order: i64,
    /// `outbox.id` of the last.
    pub last_event: i64,
}

/// Adds events for up to `most` orders whose ids follow `after`, through `last_id`, as if they were new; nothing where no order follows.
///
/// # Errors
/// When the database is away: then none was added.
pub async fn add_again(
    connection: &mut PgConnection,
    after: i64,
    last_id: i64,
    most: i64,
) -> sqlx::Result<Option<AddedAgain>> {
    let (orders, last_order, last_event): (i64, Option<i64>, Option<i64>) = sqlx::query_as(
        "WITH added AS (
             INSERT INTO outbox (buy_order_id)
             SELECT id FROM buy_order WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3
             RETURNING id, buy_order_id
         )
         SELECT count(*), max(buy_order_id), max(id) FROM added",
    )
    .bind(after)
    .bind(last_id)
    .bind(most)
    .fetch_one(connection)
    .await?;
    Ok(last_order
        .zip(last_event)
        .map(|(last_order, last_event)| AddedAgain {
            orders,
            last_order,
            last_event,
        }))
}

/// How many events the broker has not confirmed, of those up to this `outbox.id`.
///
/// # Errors
/// When the database is away.
pub async fn count_through(connection: &mut PgConnection, last_event: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM outbox WHERE id <= $1")
        .bind(last_event)
        .fetch_one(connection)
        .await
}

/// How many events wait, how old the oldest is, and how full the book is.
///
/// # Errors
/// When the database is away.
pub async fn standing(connection: &mut PgConnection) -> sqlx::Result<Standing> {
    // The oldest by id: the first entry of an index, where the smallest time would be one pass more over the table.
    let (events, oldest_id, oldest_age_s, total) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox), oldest.id, oldest.age_s, btc_amount
           FROM buy_order_running_total
           LEFT JOIN (SELECT id, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s FROM outbox ORDER BY id LIMIT 1)
                AS oldest ON true",
    )
    .fetch_one(connection)
    .await?;
    Ok(Standing {
        events,
        oldest_id,
        oldest_age_s,
        total,
    })
}
