//! Every SQL statement of this service. Each commits by itself.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;

use common::buy_order_event::BuyOrderCreated;
use common::database::outage::is_fault_of_a_row;
use common::database::{Pool, with_connection};
use common::range_checksum::{self, RangeChecksum};
use futures_util::FutureExt as _;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::delivery::{Message, Outcome, reason_of};

type StoredRow = (
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

/// Writes the orders of these messages, those that are not there yet, and says for each what became of it, in their order.
pub async fn apply(pool: &Pool, messages: &[Message]) -> Vec<Outcome> {
    let orders: Vec<&BuyOrderCreated> = messages.iter().map(|message| &message.order).collect();
    match in_time(pool, &orders).await {
        Ok(outcomes) => outcomes,
        // One of them is to blame: let it fail alone.
        Err(failure) if orders.len() > 1 && failure.is_of_a_row() => one_by_one(pool, &orders).await,
        Err(failure) => vec![failure.into(); orders.len()],
    }
}

async fn one_by_one(pool: &Pool, orders: &[&BuyOrderCreated]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(orders.len());
    for order in orders {
        outcomes.push(match in_time(pool, std::slice::from_ref(order)).await {
            Ok(outcomes) => outcomes
                .into_iter()
                .next()
                .unwrap_or_else(|| Outcome::Transient("no outcome".to_owned())),
            Err(failure) => failure.into(),
        });
        if matches!(outcomes.last(), Some(Outcome::Transient(_))) {
            // The database is away: the rest would only wait for it one after the other.
            break;
        }
    }
    let reason = "the database was away when its turn came";
    outcomes.resize(orders.len(), Outcome::Transient(reason.to_owned()));
    outcomes
}

/// Why nothing was written.
enum Failure {
    Refused(sqlx::Error),
    /// Our code panicked, and what it said.
    Panicked(String),
}

impl Failure {
    /// Whether the values themselves are to blame, so that trying again cannot help.
    fn is_of_a_row(&self) -> bool {
        match self {
            Self::Panicked(_) => true,
            Self::Refused(error) => is_fault_of_a_row(error),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        let permanent = failure.is_of_a_row();
        let reason = match failure {
            Failure::Refused(error) => format!("the read model failed: {error}"),
            Failure::Panicked(reason) => reason,
        };
        if permanent {
            Self::Permanent(reason)
        } else {
            Self::Transient(reason)
        }
    }
}

async fn in_time(pool: &Pool, orders: &[&BuyOrderCreated]) -> Result<Vec<Outcome>, Failure> {
    let written = with_connection(pool, async |connection| {
        insert_and_compare(connection, orders).await
    });
    // A value that our code cannot bear would come again and again, and take its neighbours with it.
    match AssertUnwindSafe(written).catch_unwind().await {
        Ok(written) => written.map_err(Failure::Refused),
        Err(panic) => Err(Failure::Panicked(reason_of(&*panic))),
    }
}

/// Inserts the orders that are not there, by one statement, and compares the others with what is there.
///
/// # Errors
/// When the read model is away, or refuses one of them.
pub async fn insert_and_compare(
    connection: &mut PgConnection,
    orders: &[&BuyOrderCreated],
) -> sqlx::Result<Vec<Outcome>> {
    let mut inserted = insert(connection, orders).await?;
    if inserted.len() == orders.len() {
        return Ok(vec![Outcome::Applied; orders.len()]);
    }
    let doubtful = doubtful(orders, &inserted);
    let to_compare: Vec<&BuyOrderCreated> = orders
        .iter()
        .copied()
        .filter(|order| doubtful.contains(&order.id))
        .collect();
    let stored = Stored::of(stored(connection, &to_compare).await?);
    let outcome = |order: &&BuyOrderCreated| {
        if !doubtful.contains(&order.id) {
            return Outcome::Applied;
        }
        match stored.compare(order) {
            // The first of several equal messages is the one that was inserted.
            Outcome::AlreadyApplied if inserted.remove(&order.id) => Outcome::Applied,
            outcome => outcome,
        }
    };
    Ok(orders.iter().map(outcome).collect())
}

/// The ids of orders that were not inserted, or that came twice in one batch, so that either message may have been inserted.
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

/// Rows of the read model by both of their keys.
struct Stored {
    by_id: HashMap<i64, StoredRow>,
    ids_by_external_id: HashMap<Uuid, i64>,
}

impl Stored {
    fn of(rows: Vec<StoredRow>) -> Self {
        let ids_by_external_id = rows.iter().map(|row| (row.2, row.0)).collect();
        Self {
            by_id: rows.into_iter().map(|row| (row.0, row)).collect(),
            ids_by_external_id,
        }
    }

    /// What an order that was not inserted is next to what is stored.
    fn compare(&self, order: &BuyOrderCreated) -> Outcome {
        if let Some(row) = self.by_id.get(&order.id) {
            return if *row == row_of(order) {
                Outcome::AlreadyApplied
            } else {
                Outcome::Permanent(format!("order {} is already there, with other content", order.id))
            };
        }
        match self.ids_by_external_id.get(&order.external_id) {
            Some(id) => Outcome::Permanent(format!(
                "external id {} already belongs to order {id}",
                order.external_id
            )),
            None => Outcome::Transient(format!("order {} was deleted while it was compared", order.id)),
        }
    }
}

fn row_of(order: &BuyOrderCreated) -> StoredRow {
    (
        order.id,
        order.client_id,
        order.external_id,
        order.created_at,
        order.currency_id,
        order.currency_iso3.clone(),
        order.currency_amount.decimal(),
        order.btc_rate.decimal(),
        order.btc_amount.decimal(),
    )
}

/// Inserts what is not there, and returns the ids of what was inserted.
async fn insert(connection: &mut PgConnection, orders: &[&BuyOrderCreated]) -> sqlx::Result<HashSet<i64>> {
    let column = |of: fn(&BuyOrderCreated) -> i64| orders.iter().map(|order| of(order)).collect::<Vec<_>>();
    let decimals =
        |of: fn(&BuyOrderCreated) -> Decimal| orders.iter().map(|order| of(order)).collect::<Vec<_>>();
    let external_ids: Vec<Uuid> = orders.iter().map(|order| order.external_id).collect();
    let created_at: Vec<OffsetDateTime> = orders.iter().map(|order| order.created_at).collect();
    let iso3: Vec<&str> = orders.iter().map(|order| order.currency_iso3.as_str()).collect();
    let ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO buy_order_read_model
             (id, client_id, external_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount)
         SELECT *
         FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::timestamptz[], $5::bigint[], $6::text[],
                     $7::numeric[], $8::numeric[], $9::numeric[])
         ON CONFLICT DO NOTHING
         RETURNING id",
    )
    .bind(column(|order| order.id))
    .bind(column(|order| order.client_id))
    .bind(external_ids)
    .bind(created_at)
    .bind(column(|order| order.currency_id))
    .bind(iso3)
    .bind(decimals(|order| order.currency_amount.decimal()))
    .bind(decimals(|order| order.btc_rate.decimal()))
    .bind(decimals(|order| order.btc_amount.decimal()))
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().collect())
}

/// The rows that stand in the way of these orders, by id or by external id.
async fn stored(connection: &mut PgConnection, orders: &[&BuyOrderCreated]) -> sqlx::Result<Vec<StoredRow>> {
    let ids: Vec<i64> = orders.iter().map(|order| order.id).collect();
    let external_ids: Vec<Uuid> = orders.iter().map(|order| order.external_id).collect();
    // By subqueries with a limit: any other plan may read the whole table, and would be kept from when that was empty.
    sqlx::query_as(
        "SELECT o.id, o.client_id, o.external_id, o.created_at, o.currency_id, o.currency_iso3, o.currency_amount, o.btc_rate, o.btc_amount
         FROM unnest($1::bigint[]) AS asked (id)
         CROSS JOIN LATERAL (SELECT * FROM buy_order_read_model WHERE id = asked.id LIMIT 1) AS o
         UNION
         SELECT o.id, o.client_id, o.external_id, o.created_at, o.currency_id, o.currency_iso3, o.currency_amount, o.btc_rate, o.btc_amount
         FROM unnest($2::uuid[]) AS asked (external_id)
         CROSS JOIN LATERAL (SELECT * FROM buy_order_read_model WHERE external_id = asked.external_id LIMIT 1) AS o",
    )
    .bind(ids)
    .bind(external_ids)
    .fetch_all(connection)
    .await
}

/// The checksum of the rows of a range, both ids included.
///
/// # Errors
/// When the database is away.
pub async fn checksum(
    connection: &mut PgConnection,
    from_id: i64,
    to_id: i64,
) -> sqlx::Result<RangeChecksum> {
    let orders = "SELECT id, client_id, external_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount
                  FROM buy_order_read_model";
    range_checksum::of_range(connection, orders, from_id, to_id).await
}

/// Rows outside of all ranges of the write model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strangers {
    /// How many there are that the write model would have, had it made them.
    pub older: i64,
    /// The first ten ids of these.
    pub first_ids: Vec<i64>,
    /// How many of these have an id that the write model has not come to yet.
    pub beyond: i64,
    /// How many there are that may be orders accepted since.
    pub younger: i64,
    /// The highest id of all rows, inside of the ranges too; 0 where there is none.
    pub last_id: i64,
}

/// The rows outside of `first_id` to `last_id`, both included, told apart by a moment in microseconds since 1970: what the write model
/// makes after `last_id` is younger.
///
/// # Errors
/// When the database is away.
pub async fn strangers(
    connection: &mut PgConnection,
    first_id: i64,
    last_id: i64,
    as_of_epoch_us: i64,
) -> sqlx::Result<Strangers> {
    let (older, first_ids, beyond, younger, last_id_of_all) = sqlx::query_as(
        "WITH outside AS (
             SELECT id, id > $2 AND extract(epoch FROM created_at) * 1000000 > $3 AS younger
             FROM buy_order_read_model
             WHERE id < $1 OR id > $2
         )
         SELECT count(*) FILTER (WHERE NOT younger),
                ARRAY(SELECT id FROM outside WHERE NOT younger ORDER BY id LIMIT 10),
                count(*) FILTER (WHERE NOT younger AND id > $2),
                count(*) FILTER (WHERE younger),
                coalesce((SELECT id FROM buy_order_read_model ORDER BY id DESC LIMIT 1), 0)
         FROM outside",
    )
    .bind(first_id)
    .bind(last_id)
    .bind(as_of_epoch_us)
    .fetch_one(connection)
    .await?;
    Ok(Strangers {
        older,
        first_ids,
        beyond,
        younger,
        last_id: last_id_of_all,
    })
}
