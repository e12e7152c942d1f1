//! Statements on orders.

use std::collections::HashSet;

use common::buy_order_event::BuyOrderCreated;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::outcomes::{doubtful, outcomes};
use crate::delivery::ApplyOutcome;

/// Inserts the orders that are not stored, by one statement, and compares the others with what is stored.
pub(super) async fn insert_and_compare(
    connection: &mut PgConnection,
    orders: &[&BuyOrderCreated],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    let inserted = insert(connection, orders).await?;
    if inserted.len() == orders.len() {
        return Ok(vec![ApplyOutcome::Applied; orders.len()]);
    }
    let doubtful = doubtful(orders, &inserted);
    let stored = select(connection, &doubtful).await?;
    Ok(outcomes(orders, inserted, |order| compare(order, &stored)))
}

/// The columns of an order.
macro_rules! columns {
    () => {
        "id, client_id, external_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount"
    };
}

/// A stored order. Its values may be such that no event can have them.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    id: i64,
    client_id: i64,
    external_id: Uuid,
    created_at: OffsetDateTime,
    currency_id: i64,
    currency_iso3: String,
    currency_amount: Decimal,
    btc_rate: Decimal,
    btc_amount: Decimal,
}

common::from_row!(Stored {
    id,
    client_id,
    external_id,
    created_at,
    currency_id,
    currency_iso3,
    currency_amount,
    btc_rate,
    btc_amount
});

impl From<&BuyOrderCreated> for Stored {
    fn from(order: &BuyOrderCreated) -> Self {
        let BuyOrderCreated {
            id,
            client_id,
            external_id,
            created_at,
            currency_id,
            currency_iso3,
            currency_amount,
            btc_rate,
            btc_amount,
        } = order;
        Self {
            id: *id,
            client_id: *client_id,
            external_id: *external_id,
            created_at: *created_at,
            currency_id: *currency_id,
            currency_iso3: currency_iso3.clone(),
            currency_amount: currency_amount.decimal(),
            btc_rate: btc_rate.decimal(),
            btc_amount: btc_amount.decimal(),
        }
    }
}

/// The stored orders that have the id or the external id of one of these.
async fn select(connection: &mut PgConnection, orders: &[&BuyOrderCreated]) -> sqlx::Result<Vec<Stored>> {
    // Subqueries with a limit, because PostgreSQL keeps the plan: any other plan may scan the whole table, if made while it was empty.
    const SELECT: &str = concat!(
        "SELECT o.*
         FROM unnest($1::bigint[]) AS asked (asked_id)
         CROSS JOIN LATERAL (SELECT ",
        columns!(),
        " FROM buy_order_read_model WHERE id = asked_id LIMIT 1) AS o
         UNION
         SELECT o.*
         FROM unnest($2::uuid[]) AS asked (asked_external_id)
         CROSS JOIN LATERAL (SELECT ",
        columns!(),
        " FROM buy_order_read_model WHERE external_id = asked_external_id LIMIT 1) AS o"
    );
    let ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
    let external_ids: Vec<Uuid> = orders.iter().map(|order| order.external_id).collect();
    sqlx::query_as(SELECT)
        .bind(ids)
        .bind(external_ids)
        .fetch_all(connection)
        .await
}

/// The outcome of an order that may have been stored before.
fn compare(order: &BuyOrderCreated, stored: &[Stored]) -> ApplyOutcome {
    let (id, external_id) = (order.id, order.external_id);
    if let Some(row) = stored.iter().find(|row| row.id == id) {
        if *row == Stored::from(order) {
            ApplyOutcome::AlreadyApplied
        } else {
            ApplyOutcome::Permanent(format!("order {id} is already there, with other content"))
        }
    } else if let Some(row) = stored.iter().find(|row| row.external_id == external_id) {
        ApplyOutcome::Permanent(format!(
            "external id {external_id} already belongs to order {}",
            row.id
        ))
    } else {
        ApplyOutcome::Transient(format!("order {id} was deleted while it was compared"))
    }
}

/// Orders by column, as `unnest` takes them.
#[derive(Default)]
struct Columns<'o> {
    id: Vec<i64>,
    client_id: Vec<i64>,
    external_id: Vec<Uuid>,
    created_at: Vec<OffsetDateTime>,
    currency_id: Vec<i64>,
    currency_iso3: Vec<&'o str>,
    currency_amount: Vec<Decimal>,
    btc_rate: Vec<Decimal>,
    btc_amount: Vec<Decimal>,
}

impl<'o> Columns<'o> {
    fn of(orders: &[&'o BuyOrderCreated]) -> Self {
        let mut columns = Self::default();
        for order in orders {
            let BuyOrderCreated {
                id,
                client_id,
                external_id,
                created_at,
                currency_id,
                currency_iso3,
                currency_amount,
                btc_rate,
                btc_amount,
            } = order;
            columns.id.push(*id);
            columns.client_id.push(*client_id);
            columns.external_id.push(*external_id);
            columns.created_at.push(*created_at);
            columns.currency_id.push(*currency_id);
            columns.currency_iso3.push(currency_iso3);
            columns.currency_amount.push(currency_amount.decimal());
            columns.btc_rate.push(btc_rate.decimal());
            columns.btc_amount.push(btc_amount.decimal());
        }
        columns
    }
}

/// Inserts the orders that are not stored, and returns their ids.
async fn insert(connection: &mut PgConnection, orders: &[&BuyOrderCreated]) -> sqlx::Result<HashSet<i64>> {
    const INSERT: &str = concat!(
        "INSERT INTO buy_order_read_model (",
        columns!(),
        ")
         SELECT *
         FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::timestamptz[], $5::bigint[], $6::text[],
                     $7::numeric[], $8::numeric[], $9::numeric[])
         ON CONFLICT DO NOTHING
         RETURNING id"
    );
    let columns = Columns::of(orders);
    let ids: Vec<i64> = sqlx::query_scalar(INSERT)
        .bind(columns.id)
        .bind(columns.client_id)
        .bind(columns.external_id)
        .bind(columns.created_at)
        .bind(columns.currency_id)
        .bind(columns.currency_iso3)
        .bind(columns.currency_amount)
        .bind(columns.btc_rate)
        .bind(columns.btc_amount)
        .fetch_all(connection)
        .await?;
    Ok(ids.into_iter().collect())
}
