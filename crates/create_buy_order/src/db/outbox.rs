//! The outbox: events of committed orders that the broker has not confirmed yet.
//!
//! Each function is one statement that commits by itself: no lock is held while a relay talks to the broker.

use std::time::Duration;

use anyhow::Context;
use common::buy_order_event::BuyOrderCreated;
use rust_decimal::Decimal;
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

/// An event that this relay has claimed, with its place in the outbox.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// `outbox.id`.
    pub id: i64,
    /// What happened.
    pub event: BuyOrderCreated,
    /// The trace context of the request that made the order.
    pub traceparent: Option<String>,
}

type ClaimedRow = (
    i64,
    Option<String>,
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

/// Claims the oldest free events for as long as the lease: no other relay takes them until it is over, and if this one dies, they are free
/// again then.
///
/// # Errors
/// When the database is away, or holds an order that no event can be made of.
pub async fn claim(pool: &PgPool, most: i64, lease: Duration) -> anyhow::Result<Vec<Claimed>> {
    // Relays that come at the same time skip each other's rows instead of queueing for them.
    let rows: Vec<ClaimedRow> = sqlx::query_as(
        "WITH free AS (
             SELECT id
             FROM outbox
             WHERE claimed_until IS NULL OR claimed_until < clock_timestamp()
             ORDER BY id
             LIMIT $1
             FOR UPDATE SKIP LOCKED
         ), claimed AS (
             UPDATE outbox
             SET claimed_until = clock_timestamp() + make_interval(secs => $2)
             FROM free
             WHERE outbox.id = free.id
             RETURNING outbox.id, outbox.buy_order_id, outbox.traceparent
         )
         SELECT claimed.id, claimed.traceparent, buy_order.id, buy_order.client_id, buy_order.external_id, buy_order.created_at,
                buy_order.currency_id, currency.iso3, buy_order.currency_amount, buy_order.btc_rate, buy_order.btc_amount
         FROM claimed
         JOIN buy_order ON buy_order.id = claimed.buy_order_id
         JOIN currency ON currency.id = buy_order.currency_id
         ORDER BY claimed.id",
    )
    .bind(most)
    .bind(lease.as_secs_f64())
    .fetch_all(pool)
    .await
    .context("the outbox could not be claimed")?;
    rows.into_iter().map(claimed).collect()
}

fn claimed(row: ClaimedRow) -> anyhow::Result<Claimed> {
    let (id, traceparent, order_id, client_id, external_id, created_at, currency_id, iso3, amount, rate, btc) =
        row;
    let event = BuyOrderCreated {
        id: order_id,
        client_id,
        external_id,
        created_at,
        currency_id,
        currency_iso3: iso3,
        currency_amount: amount.try_into().context("buy_order.currency_amount")?,
        btc_rate: rate.try_into().context("buy_order.btc_rate")?,
        btc_amount: btc.try_into().context("buy_order.btc_amount")?,
    };
    Ok(Claimed {
        id,
        event,
        traceparent,
    })
}

/// Removes events that the broker has confirmed.
///
/// # Errors
/// When the database is away: the events will be published once more when their lease is over, which consumers bear.
pub async fn remove(pool: &PgPool, ids: &[i64]) -> sqlx::Result<()> {
    // Fewer may be there: after an expired lease another relay may have published and removed them as well.
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(ids)
        .execute(pool)
        .await
        .map(drop)
}

/// Gives events back before their lease is over.
///
/// # Errors
/// When the database is away: then they are free when their lease is over.
pub async fn release(pool: &PgPool, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query("UPDATE outbox SET claimed_until = NULL WHERE id = ANY($1)")
        .bind(ids)
        .execute(pool)
        .await
        .map(drop)
}
