//! Every SQL statement of this service. Each commits by itself.

mod comparison;
mod orders;
mod outcomes;
mod voids;

use std::panic::AssertUnwindSafe;

use common::buy_order_event::{BuyOrderCreated, BuyOrderVoided};
use common::database::outage::is_invalid_value;
use common::database::{Pool, with_connection};
use futures_util::FutureExt as _;
use sqlx::PgConnection;

use crate::delivery::{ApplyOutcome, reason_of};
pub use comparison::{ExtraRows, checksum, extra_rows};
use outcomes::OfOrder;
pub use voids::mark_voided;

/// How far the id of an order may be beyond the newest one in the read model.
///
/// Ids grow by one, so a message with an id further on was not written by us. As the newest order it would head the first page for ever, and
/// an order that has its id one day would be a dead letter. The limit has to let every true order through, also the newest one into an empty
/// read model that is being rebuilt. So it is as high as the number of orders that the book can hold: 100 BTC of a satoshi each.
const MAX_AHEAD: i64 = 10_000_000_000;

/// What one statement does, to many or to one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'w> {
    /// Store orders.
    Orders(&'w [&'w BuyOrderCreated]),
    /// Store voids.
    Voids(&'w [&'w BuyOrderVoided]),
    /// Of the orders with these ids, mark those that are voided.
    Marks(&'w [i64]),
}

impl<'w> Work<'w> {
    fn one_by_one(self) -> Vec<Self> {
        match self {
            Self::Orders(orders) => orders.chunks(1).map(Work::Orders).collect(),
            Self::Voids(voids) => voids.chunks(1).map(Work::Voids).collect(),
            Self::Marks(ids) => ids.chunks(1).map(Work::Marks).collect(),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Orders(orders) => orders.len(),
            Self::Voids(voids) => voids.len(),
            Self::Marks(ids) => ids.len(),
        }
    }

    async fn run(self, connection: &mut PgConnection) -> sqlx::Result<Vec<ApplyOutcome>> {
        match self {
            Self::Orders(orders) => insert_orders(connection, orders).await,
            Self::Voids(voids) => insert_voids(connection, voids).await,
            Self::Marks(ids) => {
                mark_voided(connection, ids).await?;
                Ok(vec![ApplyOutcome::Applied; ids.len()])
            }
        }
    }
}

/// Does the work. Returns an outcome for each order, void or id, in their order.
pub(crate) async fn apply(pool: &Pool, work: Work<'_>) -> Vec<ApplyOutcome> {
    if work.len() == 0 {
        return Vec::new();
    }
    match try_apply(pool, work).await {
        Ok(outcomes) => outcomes,
        // One value is to blame: it must fail alone.
        Err(ApplyOutcome::Permanent(_)) if work.len() > 1 => apply_one_by_one(pool, work).await,
        Err(outcome) => vec![outcome; work.len()],
    }
}

async fn apply_one_by_one(pool: &Pool, work: Work<'_>) -> Vec<ApplyOutcome> {
    let mut outcomes = Vec::with_capacity(work.len());
    for one in work.one_by_one() {
        outcomes.extend(try_apply(pool, one).await.unwrap_or_else(|outcome| vec![outcome]));
        if matches!(outcomes.last(), Some(ApplyOutcome::Transient(_))) {
            // The database is away: each of the others would wait for its timeout.
            break;
        }
    }
    let reason = "the database was away when its turn came";
    outcomes.resize(work.len(), ApplyOutcome::Transient(reason.to_owned()));
    outcomes
}

/// The error is the outcome of all of this work: nothing was written.
async fn try_apply(pool: &Pool, work: Work<'_>) -> Result<Vec<ApplyOutcome>, ApplyOutcome> {
    let done = with_connection(pool, async |connection| work.run(connection).await);
    // Without this, a value that makes our code panic would be redelivered for ever, with its whole batch.
    match AssertUnwindSafe(done).catch_unwind().await {
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
pub async fn insert_orders(
    connection: &mut PgConnection,
    orders: &[&BuyOrderCreated],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    let max_id = max_id(connection, orders).await?;
    let near = orders::insert_and_compare(connection, &max_id.near(orders)).await?;
    Ok(max_id.with_far_ones(orders, near))
}

/// As [`insert_orders`], for voids.
///
/// # Errors
/// When the read model is away, or refuses one of them.
pub async fn insert_voids(
    connection: &mut PgConnection,
    voids: &[&BuyOrderVoided],
) -> sqlx::Result<Vec<ApplyOutcome>> {
    let max_id = max_id(connection, voids).await?;
    let near = voids::insert_and_compare(connection, &max_id.near(voids)).await?;
    Ok(max_id.with_far_ones(voids, near))
}

/// The limit of ids.
struct MaxId {
    /// The id of the newest order, or less where it does not matter.
    newest: i64,
}

async fn max_id<T: OfOrder>(connection: &mut PgConnection, messages: &[&T]) -> sqlx::Result<MaxId> {
    // Within the limit whatever is stored: almost always so.
    let newest = if messages.iter().all(|message| message.id() <= MAX_AHEAD) {
        0
    } else {
        newest_id(connection).await?
    };
    Ok(MaxId { newest })
}

impl MaxId {
    fn is_near(&self, message: &impl OfOrder) -> bool {
        message.id() <= self.newest.saturating_add(MAX_AHEAD)
    }

    fn near<'m, T: OfOrder>(&self, messages: &[&'m T]) -> Vec<&'m T> {
        messages
            .iter()
            .copied()
            .filter(|message| self.is_near(*message))
            .collect()
    }

    /// The outcomes of all messages, from those of the near ones.
    fn with_far_ones<T: OfOrder>(&self, messages: &[&T], near: Vec<ApplyOutcome>) -> Vec<ApplyOutcome> {
        let mut near = near.into_iter();
        let outcome = |message: &&T| {
            let far = || {
                let (id, newest) = (message.id(), self.newest);
                ApplyOutcome::Permanent(format!(
                    "id {id} is more than {MAX_AHEAD} beyond {newest}, the newest order's"
                ))
            };
            if self.is_near(*message) { near.next() } else { None }.unwrap_or_else(far)
        };
        messages.iter().map(outcome).collect()
    }
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
