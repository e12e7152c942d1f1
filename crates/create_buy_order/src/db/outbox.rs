//! The outbox: messages that the broker has not confirmed yet. Each function is one statement that commits by itself.

use common::broker::Event;
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// A row of the outbox.
#[derive(Debug, Clone)]
pub struct Message {
    /// `outbox.id`.
    pub id: i64,
    /// What to publish.
    pub event: Event,
    /// The trace context of the request that made the message.
    pub traceparent: Option<String>,
    /// The state of other tracers in that context.
    pub tracestate: Option<String>,
}

common::from_row!(Message { id, traceparent, tracestate; event });

/// The oldest messages, `max` at most.
pub async fn oldest(connection: &mut PgConnection, max: i64) -> sqlx::Result<Vec<Message>> {
    sqlx::query_as(
        "SELECT id, type, routing_key, message_id, payload, created_at, traceparent, tracestate FROM outbox ORDER BY id LIMIT $1",
    )
    .bind(max)
    .fetch_all(connection)
    .await
}

/// Deletes messages that the broker has confirmed. If this fails, they are sent once more: consumers are idempotent.
pub async fn delete(connection: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM outbox WHERE id = ANY($1)")
        .bind(ids)
        .execute(connection)
        .await
        .map(drop)
}

/// The state of outbox and book, for `/metrics`.
#[derive(Debug)]
pub struct Gauges {
    /// Messages in the outbox.
    pub messages: i64,
    /// `outbox.id` of the oldest message.
    pub oldest_id: Option<i64>,
    /// Its age in seconds, by the clock of the database.
    pub oldest_age_s: Option<f64>,
    /// The BTC of all orders.
    pub total: Decimal,
}

common::from_row!(Gauges {
    messages,
    oldest_id,
    oldest_age_s,
    total
});

/// Reads the state of outbox and book.
pub async fn gauges(connection: &mut PgConnection) -> sqlx::Result<Gauges> {
    // The oldest by id is the first entry of an index. The smallest time would need another pass over the table.
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox) AS messages, oldest.id AS oldest_id, oldest.age_s AS oldest_age_s, btc_amount AS total
           FROM buy_order_running_total
           LEFT JOIN (SELECT id, extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s FROM outbox ORDER BY id LIMIT 1)
                AS oldest ON true",
    )
    .fetch_one(connection)
    .await
}
