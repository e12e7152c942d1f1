//! Every SQL statement of this service.

use std::cmp::Reverse;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};
use uuid::Uuid;

use crate::page::BuyOrder;

/// The orders of a client below an id, newest first, for each of the pages asked for: one range of `buy_order_read_model_page_idx`, read
/// backwards from its end.
///
/// The pair is compared, and `client_id` is ordered by, to leave that index as the only way: given `client_id = $1 AND id < $2
/// ORDER BY id DESC`, PostgreSQL prefers the primary key, and reads every newer order of every other client on the way to the page.
///
/// The database writes the decimals as text, with the scale of their columns: nothing on the way can change a digit.
pub const PAGES: &str = "
    SELECT asked.place - 1, o.id, o.external_id, o.created_at, o.currency_iso3,
           o.currency_amount::text, o.btc_rate::text, o.btc_amount::text
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS asked (client_id, below, page_size, place)
    CROSS JOIN LATERAL (
        SELECT *
        FROM buy_order_read_model
        WHERE (client_id, id) < (asked.client_id, asked.below) AND client_id >= asked.client_id
        ORDER BY client_id DESC, id DESC
        LIMIT asked.page_size
    ) AS o";

/// Where in the order of all orders a client's own ones stand.
pub const POSITIONS: &str = "
    SELECT asked.place - 1, o.id
    FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY AS asked (client_id, external_id, place)
    CROSS JOIN LATERAL (
        SELECT id
        FROM buy_order_read_model
        WHERE external_id = asked.external_id AND client_id = asked.client_id
        LIMIT 1
    ) AS o";

/// A part of a client's orders, newest first.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Whose orders.
    pub client_id: i64,
    /// Only those whose ids are below this one.
    pub below: i64,
    /// How many at most.
    pub page_size: u32,
}

/// The orders of each range, newest first.
///
/// # Errors
/// When the database is away or refuses.
pub async fn pages(connection: &mut PgConnection, ranges: &[Range]) -> sqlx::Result<Vec<Vec<BuyOrder>>> {
    let column = |of: fn(&Range) -> i64| ranges.iter().map(of).collect::<Vec<i64>>();
    let found = sqlx::query(PAGES)
        .bind(column(|range| range.client_id))
        .bind(column(|range| range.below))
        .bind(column(|range| range.page_size.into()))
        .fetch_all(connection)
        .await?;
    let mut pages: Vec<Vec<(i64, BuyOrder)>> = vec![Vec::new(); ranges.len()];
    for row in &found {
        if let Some(page) = pages.get_mut(place(row)?) {
            page.push((row.try_get(1)?, BuyOrder::from_row(row)?));
        }
    }
    // They come in this order, but SQL promises it only within the subquery.
    let newest_first = |mut page: Vec<(i64, BuyOrder)>| {
        page.sort_by_key(|(id, _)| Reverse(*id));
        page.into_iter().map(|(_, order)| order).collect()
    };
    Ok(pages.into_iter().map(newest_first).collect())
}

/// For each client and order the position of that order, if the client has it and the projection has brought it here.
///
/// # Errors
/// When the database is away or refuses.
pub async fn positions(
    connection: &mut PgConnection,
    references: &[(i64, Uuid)],
) -> sqlx::Result<Vec<Option<i64>>> {
    let (clients, orders): (Vec<i64>, Vec<Uuid>) = references.iter().copied().unzip();
    let found = sqlx::query(POSITIONS)
        .bind(clients)
        .bind(orders)
        .fetch_all(connection)
        .await?;
    let mut positions = vec![None; references.len()];
    for row in &found {
        if let Some(position) = positions.get_mut(place(row)?) {
            *position = Some(row.try_get(1)?);
        }
    }
    Ok(positions)
}

fn place(row: &PgRow) -> sqlx::Result<usize> {
    usize::try_from(row.try_get::<i64, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// By the columns of [`PAGES`].
impl FromRow<'_, PgRow> for BuyOrder {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(2)?,
            created_at: row.try_get(3)?,
            currency: row.try_get(4)?,
            currency_amount: row.try_get(5)?,
            btc_rate: row.try_get(6)?,
            btc_amount: row.try_get(7)?,
        })
    }
}
