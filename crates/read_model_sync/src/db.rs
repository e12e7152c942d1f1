//! Every SQL statement of this service. Each commits by itself.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;

use common::buy_order_event::BuyOrderCreated;
use common::database::outage::is_invalid_value;
use common::database::{Pool, with_connection};
use common::range_checksum::{self, RangeChecksum};
use futures_util::FutureExt as _;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::delivery::{ApplyOutcome, Message, reason_of};

/// How far the id of an order may be beyond the newest one in the read model.
///
/// Ids grow by one, so a message with an id further on was not written by us. As the newest order it would head the first page for ever, and
/// an order that has its id one day would be a dead letter. The limit has to let every true order through, also the newest one into an empty
/// read model that is being rebuilt. So it is as high as the number of orders that the book can hold: 100 BTC of a satoshi each.
const MAX_AHEAD: i64 = 10_000_000_000;

/// Writes the orders of these messages that are not stored yet. Returns an outcome for each message, in their order.
pub(crate) async fn apply(pool: &Pool, messages: &[Message]) -> Vec<ApplyOutcome> {
    let orders: Vec<&BuyOrderCreated> = messages.iter().map(|message| &message.order).collect();
    match write(pool, &orders).await {
        Ok(outcomes) => outcomes,
        // One order is to blame: it must fail alone.
        Err(ApplyOutcome::Permanent(_)) if orders.len() > 1 => write_one_by_one(pool, &orders).await,
        Err(outcome) => vec![outcome; orders.len()],
    }
}

async fn write_one_by_one(pool: &Pool, orders: &[&BuyOrderCreated]) -> Vec<ApplyOutcome> {
    let mut outcomes = Vec::with_capacity(orders.len());
    for order in orders {
        outcomes.extend(
            write(pool, &[order])
                .await
                .unwrap_or_else(|outcome| vec![outcome]),
        );
        if matches!(outcomes.last(), Some(ApplyOutcome::Transient(_))) {
            // The database is away: each of the others would wait for its timeout.
            break;
        }
    }
    let reason = "the database was away when its turn came";
    outcomes.resize(orders.len(), ApplyOutcome::Transient(reason.to_owned()));
    outcomes
}

/// The error is the outcome of each of these orders: nothing was written.
async fn write(pool: &Pool, orders: &[&BuyOrderCreated]) -> Result<Vec<ApplyOutcome>, ApplyOutcome> {
    let written = with_connection(pool, async |connection| {
        insert_and_compare(connection, orders).await
    });
    // Without this, a value that makes our code panic would be redelivered for ever, with its whole batch.
    match AssertUnwindSafe(written).catch_unwind().await {
        Ok(Ok(outcomes)) => Ok(outcomes),
        Ok(Err(error)) => {
            let reason = format!("the read model failed: {error}");
            Err(if is_invalid_value(&error) {
                ApplyOutcome::Permanent(reason)
            } else {
                ApplyOutcome::Transient(reason)
            })
        }
        Err(panic) => Err(ApplyOutcome::Permanent(reason_of(&*panic))),
    }
}

/// Inserts the orders that are not stored, by one statement, and compares the others with what is stored. Leaves out those whose id is more
/// than `MAX_AHEAD` beyond the newest one.
///
/// # Errors
/// When the read model is away, or refuses one of them.
pub async fn insert_and_compare(
    connection: &mut PgConnection,
    orders: &[&BuyOrderCreated],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    // Whatever is stored: almost always so.
    if orders.iter().all(|order| order.id <= MAX_AHEAD) {
        return insert_near(connection, orders).await;
    }
    let newest = newest_id(connection).await?;
    let is_near = |order: &BuyOrderCreated| order.id <= newest.saturating_add(MAX_AHEAD);
    let near: Vec<&BuyOrderCreated> = orders.iter().copied().filter(|order| is_near(order)).collect();
    let mut near = insert_near(connection, &near).await?.into_iter();
    let outcome = |order: &&BuyOrderCreated| {
        let far = || {
            let id = order.id;
            ApplyOutcome::Permanent(format!(
                "id {id} is more than {MAX_AHEAD} beyond {newest}, the newest order's"
            ))
        };
        if is_near(order) { near.next() } else { None }.unwrap_or_else(far)
    };
    Ok(orders.iter().map(outcome).collect())
}

/// The highest id of all rows; 0 when there is none.
///
/// # Errors
/// When the database is away.
pub async fn newest_id(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT coalesce((SELECT id FROM buy_order_read_model ORDER BY id DESC LIMIT 1), 0)")
        .fetch_one(connection)
        .await
}

async fn insert_near(
    connection: &mut PgConnection,
    orders: &[&BuyOrderCreated],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    let mut inserted = insert(connection, orders).await?;
    if inserted.len() == orders.len() {
        return Ok(vec![ApplyOutcome::Applied; orders.len()]);
    }
    let doubtful = doubtful(orders, &inserted);
    let is_doubtful = |order: &&BuyOrderCreated| doubtful.contains(&order.id);
    let to_compare: Vec<&BuyOrderCreated> = orders.iter().copied().filter(is_doubtful).collect();
    let stored = select(connection, &to_compare).await?;
    let outcome = |order: &&BuyOrderCreated| {
        if !is_doubtful(order) {
            return ApplyOutcome::Applied;
        }
        match compare(order, &stored) {
            // Of equal messages in one batch, the first is the one that was inserted.
            ApplyOutcome::AlreadyApplied if inserted.remove(&order.id) => ApplyOutcome::Applied,
            outcome => outcome,
        }
    };
    Ok(orders.iter().map(outcome).collect())
}

/// The ids of orders that were not inserted, or that are in the batch twice: then either message may have been inserted.
fn doubtful(orders: &[&BuyOrderCreated], inserted: &HashSet<i64>) -> HashSet<i64> {
    let mut seen = HashSet::with_capacity(orders.len());
    let repeated_or_missing =
        |order: &&&BuyOrderCreated| !seen.insert(order.id) || !inserted.contains(&order.id);
    orders
        .iter()
        .filter(repeated_or_missing)
        .map(|order| order.id)
        .collect()
}

/// The columns of an order.
macro_rules! columns {
    () => {
        "id, client_id, external_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount"
    };
}

/// A stored order. Its values may be such that no event can have them.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
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

/// The checksum of the rows of a range of ids, both ends included.
///
/// # Errors
/// When the database is away.
pub async fn checksum(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
) -> sqlx::Result<RangeChecksum> {
    range_checksum::of_range(connection, "TABLE buy_order_read_model", from_id, to_id).await
}

/// Rows outside of all ranges of the write model.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ExtraRows {
    /// Rows that the write model would have if it had made them.
    pub older: i64,
    /// The first ten ids of these.
    pub first_ids: Vec<i64>,
    /// How many of these have an id that the write model has not reached yet.
    pub beyond: i64,
    /// Rows that may be orders accepted since the checksums.
    pub younger: i64,
    /// The highest id of all rows, also inside the ranges; 0 when there is none.
    pub last_id: i64,
}

/// The rows outside of `first_id` to `last_id`, both included. `as_of_epoch_us`, in microseconds since 1970, divides them: orders that the
/// write model makes after `last_id` are younger.
///
/// # Errors
/// When the database is away.
pub async fn extra_rows(
    connection: &mut PgConnection,
    first_id: i64,
    last_id: i64,
    as_of_epoch_us: i64,
) -> sqlx::Result<ExtraRows> {
    sqlx::query_as(
        "WITH outside AS (
             SELECT id, id > $2 AND extract(epoch FROM created_at) * 1000000 > $3 AS younger
             FROM buy_order_read_model
             WHERE id < $1 OR id > $2
         )
         SELECT count(*) FILTER (WHERE NOT younger) AS older,
                ARRAY(SELECT id FROM outside WHERE NOT younger ORDER BY id LIMIT 10) AS first_ids,
                count(*) FILTER (WHERE NOT younger AND id > $2) AS beyond,
                count(*) FILTER (WHERE younger) AS younger,
                coalesce((SELECT id FROM buy_order_read_model ORDER BY id DESC LIMIT 1), 0) AS last_id
         FROM outside",
    )
    .bind(first_id)
    .bind(last_id)
    .bind(as_of_epoch_us)
    .fetch_one(connection)
    .await
}
