//! Every SQL statement of this service.

use std::cmp::Reverse;

use sqlx::postgres::PgRow;
use sqlx::{Column as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::page::BuyOrder;

/// The orders of each requested page, newest first, without those that are voided: one range of `buy_order_read_model_shown_idx`, read backwards
/// from the position of the reference, or from the newest order. A page without orders is one row without an order. It is not known when the
/// client has no order with that reference. A voided order stays a reference: a client may stand on it when it is voided.
///
/// The condition compares a pair and the order includes `client_id`, so that no other index fits. For `client_id = $1 AND id < $2 ORDER BY id
/// DESC` PostgreSQL prefers the primary key, and reads every newer order of all other clients.
///
/// The reference is looked up by its id alone; its `LIMIT` keeps PostgreSQL from adding the comparison of clients to that lookup. With
/// both, PostgreSQL might read all orders of the client while its statistics say that the table is empty.
///
/// PostgreSQL writes the decimals as text with the scale of their columns: that is exact, and cheaper than decoding a number to print it.
pub const PAGES: &str = "
    SELECT asked.index - 1 AS page_index, position.below IS NOT NULL AS is_known, o.*
    FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS asked (client_id, last_reference, page_size, index)
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN asked.last_reference IS NULL THEN 9223372036854775807 -- above every id
            ELSE (SELECT named.id
                  FROM (SELECT id, client_id FROM buy_order_read_model WHERE external_id = asked.last_reference LIMIT 1) AS named
                  WHERE named.client_id = asked.client_id)
        END AS below
        OFFSET 0 -- computed once per page
    ) AS position
    LEFT JOIN LATERAL (
        SELECT id AS sort_key, external_id AS id, created_at, currency_iso3 AS currency,
               currency_amount::text, btc_rate::text, btc_amount::text
        FROM buy_order_read_model AS stored
        WHERE (client_id, stored.id) < (asked.client_id, position.below) AND client_id >= asked.client_id AND voided_at IS NULL
        ORDER BY client_id DESC, stored.id DESC
        LIMIT asked.page_size
    ) AS o ON true";

/// Whether each client has this order in the read model. An order that is voided, too: its row stays.
///
/// The order is looked up by its id alone; the `LIMIT` is there for the reason that [`PAGES`] has one.
const PROJECTED: &str = "
    SELECT EXISTS (
               SELECT FROM (SELECT client_id FROM buy_order_read_model WHERE external_id = asked.external_id LIMIT 1) AS named
               WHERE named.client_id = asked.client_id
           ) AS is_projected
    FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY AS asked (client_id, external_id, index)
    ORDER BY asked.index";

/// An order of a client.
#[derive(Debug, Clone, Copy)]
pub struct OrderReference {
    /// Whose order.
    pub client_id: i64,
    /// Its id as clients see it.
    pub external_id: Uuid,
}

/// Whether each order is in the read model and of that client.
///
/// # Errors
/// When the database is away or refuses.
pub async fn are_projected(
    connection: &mut PgConnection,
    orders: &[OrderReference],
) -> sqlx::Result<Vec<bool>> {
    let clients: Vec<i64> = orders.iter().map(|order| order.client_id).collect();
    let ids: Vec<Uuid> = orders.iter().map(|order| order.external_id).collect();
    sqlx::query_scalar(PROJECTED)
        .bind(clients)
        .bind(ids)
        .fetch_all(connection)
        .await
}

/// Which page.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Whose orders.
    pub client_id: i64,
    /// The last order of the previous page; nothing for the newest page.
    pub last_reference: Option<Uuid>,
    /// The maximum number of orders.
    pub page_size: u32,
}

/// The rows of each page; nothing when the client has no order with the reference, or it is not projected yet.
///
/// # Errors
/// When the database is away or refuses.
pub async fn pages(
    connection: &mut PgConnection,
    requests: &[PageRequest],
) -> sqlx::Result<Vec<Option<PageRows>>> {
    let clients: Vec<i64> = requests.iter().map(|request| request.client_id).collect();
    let references: Vec<Option<Uuid>> = requests.iter().map(|request| request.last_reference).collect();
    let sizes: Vec<i64> = requests
        .iter()
        .map(|request| i64::from(request.page_size))
        .collect();
    let rows = sqlx::query(PAGES)
        .bind(clients)
        .bind(references)
        .bind(sizes)
        .fetch_all(connection)
        .await?;
    // Each request has at least one row.
    let columns = Columns::of(rows.first().ok_or(sqlx::Error::RowNotFound)?)?;
    let mut pages: Vec<Option<PageRows>> = requests.iter().map(|_| None).collect();
    for row in rows {
        let is_known: bool = row.try_get(columns.is_known)?;
        let page_index = usize::try_from(row.try_get::<i64, _>(columns.page_index)?);
        let page_index = page_index.map_err(|error| sqlx::Error::Decode(error.into()))?;
        if is_known && let Some(page) = pages.get_mut(page_index) {
            let page = page.get_or_insert_with(|| PageRows {
                columns,
                rows: Vec::new(),
            });
            page.rows.push(row);
        }
    }
    Ok(pages)
}

/// The rows of a page as PostgreSQL sent them. Decoding takes longer than reading, so each request decodes its own, while others read.
#[derive(Debug)]
pub struct PageRows {
    columns: Columns,
    rows: Vec<PgRow>,
}

impl PageRows {
    /// The orders, newest first.
    ///
    /// # Errors
    /// When a column has another type than expected.
    pub fn decode(&self) -> sqlx::Result<Vec<BuyOrder>> {
        let mut orders: Vec<(i64, BuyOrder)> = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            if let Some(sort_key) = row.try_get(self.columns.sort_key)? {
                orders.push((sort_key, self.columns.order(row)?));
            }
        }
        // The rows arrive in this order, but SQL guarantees it only within the subquery.
        orders.sort_by_key(|(sort_key, _)| Reverse(*sort_key));
        Ok(orders.into_iter().map(|(_, order)| order).collect())
    }
}

/// The positions of the columns of [`PAGES`], looked up by name once per answer and not once per row.
#[derive(Debug, Clone, Copy)]
struct Columns {
    page_index: usize,
    is_known: usize,
    sort_key: usize,
    id: usize,
    created_at: usize,
    currency: usize,
    currency_amount: usize,
    btc_rate: usize,
    btc_amount: usize,
}

impl Columns {
    fn of(row: &PgRow) -> sqlx::Result<Self> {
        let position = |name: &str| Ok::<_, sqlx::Error>(row.try_column(name)?.ordinal());
        Ok(Self {
            page_index: position("page_index")?,
            is_known: position("is_known")?,
            sort_key: position("sort_key")?,
            id: position("id")?,
            created_at: position("created_at")?,
            currency: position("currency")?,
            currency_amount: position("currency_amount")?,
            btc_rate: position("btc_rate")?,
            btc_amount: position("btc_amount")?,
        })
    }

    fn order(&self, row: &PgRow) -> sqlx::Result<BuyOrder> {
        let text = |column| row.try_get(column).map(<&str>::into);
        Ok(BuyOrder {
            id: row.try_get(self.id)?,
            created_at: row.try_get(self.created_at)?,
            currency: text(self.currency)?,
            currency_amount: text(self.currency_amount)?,
            btc_rate: text(self.btc_rate)?,
            btc_amount: text(self.btc_amount)?,
        })
    }
}
