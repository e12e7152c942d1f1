//! The rows of the two models, as the checks compare them.

use sqlx::PgPool;
use uuid::Uuid;

/// A row of either model. Decimals are texts: `12.50` and `12.5` differ here, as they do for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The internal id, by which orders are sorted.
    pub id: i64,
    /// The id that clients see.
    pub external_id: Uuid,
    /// The client who placed the order.
    pub client_id: i64,
    /// UTC, with microseconds.
    pub created_at: String,
    /// The currency's id.
    pub currency_id: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Two decimals.
    pub currency_amount: String,
    /// Eight decimals.
    pub btc_rate: String,
    /// Eight decimals.
    pub btc_amount: String,
    /// UTC, with microseconds. `None` if it is not voided.
    pub voided_at: Option<String>,
}

/// An order that was voided, as either model has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// The internal id of the order.
    pub id: i64,
    /// Its id that clients see.
    pub external_id: Uuid,
    /// Why it was voided.
    pub reason: String,
    /// UTC, with microseconds.
    pub voided_at: String,
}

/// An idempotence key and its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// ISO 4217 code.
    pub currency: String,
    /// Two decimals.
    pub currency_amount: String,
    /// The key that the client chose.
    pub idempotence_key: Uuid,
    /// `id` of the order.
    pub buy_order_id: i64,
}

common::from_row!(Row {
    id,
    external_id,
    client_id,
    created_at,
    currency_id,
    currency,
    currency_amount,
    btc_rate,
    btc_amount,
    voided_at
});

common::from_row!(Void {
    id,
    external_id,
    reason,
    voided_at
});

common::from_row!(Key {
    currency,
    currency_amount,
    idempotence_key,
    buy_order_id
});

/// All orders of the write model, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn orders(write_model: &PgPool) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(
        r#"SELECT o.id, o.external_id, o.client_id, to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
                  o.currency_id, c.iso3::text AS currency, o.currency_amount::text, o.btc_rate::text, o.btc_amount::text,
                  to_char(v.voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS voided_at
           FROM buy_order AS o JOIN currency AS c ON c.id = o.currency_id LEFT JOIN buy_order_void AS v ON v.buy_order_id = o.id
           ORDER BY o.id"#,
    )
    .fetch_all(write_model)
    .await
}

/// All voids of the write model, in the order of orders.
///
/// # Errors
/// When the database is away.
pub async fn voids(write_model: &PgPool) -> sqlx::Result<Vec<Void>> {
    sqlx::query_as(
        r#"SELECT o.id, o.external_id, v.reason, to_char(v.voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS voided_at
           FROM buy_order_void AS v JOIN buy_order AS o ON o.id = v.buy_order_id
           ORDER BY o.id"#,
    )
    .fetch_all(write_model)
    .await
}

/// All voids of the read model, in the order of orders.
///
/// # Errors
/// When the database is away.
pub async fn projected_voids(read_model: &PgPool) -> sqlx::Result<Vec<Void>> {
    sqlx::query_as(
        r#"SELECT id, external_id, reason, to_char(voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS voided_at
           FROM buy_order_void_read_model
           ORDER BY id"#,
    )
    .fetch_all(read_model)
    .await
}

/// All idempotence keys of the write model.
///
/// # Errors
/// When the database is away.
pub async fn keys(write_model: &PgPool) -> sqlx::Result<Vec<Key>> {
    sqlx::query_as(
        "SELECT c.iso3::text AS currency, o.currency_amount::text, o.idempotence_key, o.id AS buy_order_id
         FROM buy_order AS o JOIN currency AS c ON c.id = o.currency_id",
    )
    .fetch_all(write_model)
    .await
}

/// The number of events that the broker has not confirmed.
///
/// # Errors
/// When the database is away.
pub async fn outbox_depth(write_model: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(write_model)
        .await
}

/// The outbox id of the oldest event that waits.
///
/// # Errors
/// When the database is away.
pub async fn oldest_event(write_model: &PgPool) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT min(id) FROM outbox")
        .fetch_one(write_model)
        .await
}

/// The outbox id of the newest event that waits.
///
/// # Errors
/// When the database is away.
pub async fn newest_event(write_model: &PgPool) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT max(id) FROM outbox")
        .fetch_one(write_model)
        .await
}

/// The relay that holds the lease, if one does.
///
/// # Errors
/// When the database is away.
pub async fn relay(write_model: &PgPool) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar("SELECT holder FROM relay_lease WHERE held_until > clock_timestamp()")
        .fetch_optional(write_model)
        .await
        .map(Option::flatten)
}

/// All rows of the read model, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn projected(read_model: &PgPool) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(
        r#"SELECT id, external_id, client_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
                  currency_id, currency_iso3::text AS currency, currency_amount::text, btc_rate::text, btc_amount::text,
                  to_char(voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS voided_at
           FROM buy_order_read_model
           ORDER BY id"#,
    )
    .fetch_all(read_model)
    .await
}

/// How much each model holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The number of orders.
    pub orders: i64,
    /// The number of voids.
    pub voids: i64,
    /// The number of orders that are marked as voided.
    pub voided_orders: i64,
}

common::from_row!(Size {
    orders,
    voids,
    voided_orders
});

/// How much the write model holds.
///
/// # Errors
/// When the database is away.
pub async fn size(write_model: &PgPool) -> sqlx::Result<Size> {
    sqlx::query_as(
        "SELECT orders, voids, voids AS voided_orders
         FROM (SELECT count(*) AS orders FROM buy_order) AS orders, (SELECT count(*) AS voids FROM buy_order_void) AS voids",
    )
    .fetch_one(write_model)
    .await
}

/// How much the read model holds.
///
/// # Errors
/// When the database is away.
pub async fn projected_size(read_model: &PgPool) -> sqlx::Result<Size> {
    sqlx::query_as(
        "SELECT orders, voids, voided_orders
         FROM (SELECT count(*) AS orders, count(voided_at) AS voided_orders FROM buy_order_read_model) AS orders,
              (SELECT count(*) AS voids FROM buy_order_void_read_model) AS voids",
    )
    .fetch_one(read_model)
    .await
}
