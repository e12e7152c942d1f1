//! Every SQL statement of this service.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};
use uuid::Uuid;

use crate::page::BuyOrder;

/// The orders of a client below an id, newest first: one range of `buy_order_read_model_page_idx`, read backwards from its end.
///
/// The pair is compared, and `client_id` is ordered by, to leave that index as the only way: given `client_id = $1 AND id < $2
/// ORDER BY id DESC`, PostgreSQL prefers the primary key, and reads every newer order of every other client on the way to the page.
///
/// The database writes the decimals as text, with the scale of their columns: nothing on the way can change a digit.
pub const PAGE: &str = "
    SELECT o.external_id, o.created_at, o.currency_iso3,
           o.currency_amount::text, o.btc_rate::text, o.btc_amount::text
    FROM buy_order_read_model o
    WHERE (o.client_id, o.id) < ($1, $2) AND o.client_id >= $1
    ORDER BY o.client_id DESC, o.id DESC
    LIMIT $3";

/// Where in the order of all orders one of a client's own stands.
pub const POSITION: &str = "SELECT id FROM buy_order_read_model WHERE external_id = $1 AND client_id = $2";

/// Up to `limit` orders of a client that are older than the order at `below`, newest first.
///
/// # Errors
/// When the database is away or refuses.
pub async fn page(
    connection: &mut PgConnection,
    client_id: i64,
    below: i64,
    limit: u32,
) -> sqlx::Result<Vec<BuyOrder>> {
    sqlx::query_as(PAGE)
        .bind(client_id)
        .bind(below)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
}

/// The position of a client's order, if the client has that order and the projection has brought it here.
///
/// # Errors
/// When the database is away or refuses.
pub async fn position(
    connection: &mut PgConnection,
    client_id: i64,
    reference: Uuid,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(POSITION)
        .bind(reference)
        .bind(client_id)
        .fetch_optional(connection)
        .await
}

impl FromRow<'_, PgRow> for BuyOrder {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("external_id")?,
            created_at: row.try_get("created_at")?,
            currency: row.try_get("currency_iso3")?,
            currency_amount: row.try_get("currency_amount")?,
            btc_rate: row.try_get("btc_rate")?,
            btc_amount: row.try_get("btc_amount")?,
        })
    }
}
