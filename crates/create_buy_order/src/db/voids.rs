//! Voids: orders that an operator takes out of the book.

use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

/// How an order was voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// `buy_order.id`.
    pub id: i64,
    /// Why.
    pub reason: String,
    /// When.
    pub voided_at: OffsetDateTime,
    /// Whether this call has done it; else it was done before, and nothing has changed.
    pub is_new: bool,
}

/// Voids an order, in one transaction: see `void_order` in `migrations/write_model/V6__orders_can_be_voided_and_clients_limited.sql`. Nothing
/// when no order has the id.
///
/// # Errors
/// When the write model is away or refuses. After a lost connection it is not known whether the order is voided.
pub async fn void(
    connection: &mut PgConnection,
    external_id: Uuid,
    reason: &str,
) -> sqlx::Result<Option<Void>> {
    let row = sqlx::query("SELECT verdict, id, reason, voided_at FROM void_order($1, $2)")
        .bind(external_id)
        .bind(reason)
        .fetch_one(connection)
        .await?;
    let is_new = match row.try_get("verdict")? {
        "voided" => true,
        "voided_before" => false,
        "unknown" => return Ok(None),
        other => return Err(sqlx::Error::Decode(format!("unknown verdict {other:?}").into())),
    };
    Ok(Some(Void {
        id: row.try_get("id")?,
        reason: row.try_get("reason")?,
        voided_at: row.try_get("voided_at")?,
        is_new,
    }))
}
