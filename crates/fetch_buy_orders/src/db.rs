//! Every SQL statement of this service.

use std::cmp::Reverse;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};
use uuid::Uuid;

use crate::page::BuyOrder;

/// Of each page that is asked for, which follows a reference or is the newest, the orders, newest first: one range of
/// `buy_order_read_model_page_idx`, read backwards from where the reference stands. A page without orders has one row, without an order, and
/// without a position where the client has no such reference.
///
/// The pair is compared, and `client_id` is ordered by, to leave that index as the only way: given `client_id = $1 AND id < $2
/// ORDER BY id DESC`, PostgreSQL prefers the primary key, and reads every newer order of every other client on the way to the page.
///
/// Where the reference stands is looked up by its id alone, which the limit keeps apart from the comparison of clients: of a table that it
/// takes for empty PostgreSQL would as soon read all orders of the client.
///
/// The database writes the decimals as text, with the scale of their columns: nothing on the way can change a digit.
pub const PAGES: &str = "
    SELECT asked.place - 1, position.below IS NOT NULL, o.id, o.external_id, o.created_at, o.currency_iso3,
           o.currency_amount::text, o.btc_rate::text, o.btc_amount::text
    FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS asked (client_id, last_reference, page_size, place)
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN asked.last_reference IS NULL THEN 9223372036854775807 -- above every id that is drawn
            ELSE (SELECT named.id
                  FROM (SELECT id, client_id FROM buy_order_read_model WHERE external_id = asked.last_reference LIMIT 1) AS named
                  WHERE named.client_id = asked.client_id)
        END AS below
        OFFSET 0 -- computed once per page
    ) AS position
    LEFT JOIN LATERAL (
        SELECT *
        FROM buy_order_read_model
        WHERE (client_id, id) < (asked.client_id, position.below) AND client_id >= asked.client_id
        ORDER BY client_id DESC, id DESC
        LIMIT asked.page_size
    ) AS o ON true";

/// Which page.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Whose orders.
    pub client_id: i64,
    /// The last order of the page before; nothing for the newest page.
    pub last_reference: Option<Uuid>,
    /// How many orders at most.
    pub page_size: u32,
}

/// The orders of each page, newest first; nothing where the client has no such reference, or the projection has not brought it here yet.
///
/// # Errors
/// When the database is away or refuses.
pub async fn pages(
    connection: &mut PgConnection,
    requests: &[PageRequest],
) -> sqlx::Result<Vec<Option<Vec<BuyOrder>>>> {
    let clients: Vec<i64> = requests.iter().map(|request| request.client_id).collect();
    let references: Vec<Option<Uuid>> = requests.iter().map(|request| request.last_reference).collect();
    let sizes: Vec<i64> = requests
        .iter()
        .map(|request| i64::from(request.page_size))
        .collect();
    let found = sqlx::query(PAGES)
        .bind(clients)
        .bind(references)
        .bind(sizes)
        .fetch_all(connection)
        .await?;
    let mut pages: Vec<Option<Vec<(i64, BuyOrder)>>> = vec![None; requests.len()];
    for row in &found {
        let is_known: bool = row.try_get(1)?;
        if is_known && let Some(page) = pages.get_mut(place(row)?) {
            let orders = page.get_or_insert_default();
            if let Some(id) = row.try_get::<Option<i64>, _>(2)? {
                orders.push((id, BuyOrder::from_row(row)?));
            }
        }
    }
    // They come in this order, but SQL promises it only within the subquery.
    let newest_first = |mut orders: Vec<(i64, BuyOrder)>| {
        orders.sort_by_key(|(id, _)| Reverse(*id));
        orders.into_iter().map(|(_, order)| order).collect()
    };
    Ok(pages.into_iter().map(|page| page.map(newest_first)).collect())
}

fn place(row: &PgRow) -> sqlx::Result<usize> {
    usize::try_from(row.try_get::<i64, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// By the columns of [`PAGES`].
impl FromRow<'_, PgRow> for BuyOrder {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(3)?,
            created_at: row.try_get(4)?,
            currency: row.try_get(5)?,
            currency_amount: row.try_get(6)?,
            btc_rate: row.try_get(7)?,
            btc_amount: row.try_get(8)?,
        })
    }
}
