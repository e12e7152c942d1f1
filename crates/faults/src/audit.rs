//! Compares the data in the databases, the queues and the pages with the answers that clients got. Runs when the load has ended and the
//! cluster is quiet.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use cluster::Cluster;
use futures_util::StreamExt as _;
use futures_util::stream;
use sqlx::PgPool;
use uuid::Uuid;

use crate::books::{self, Key, Row};
use crate::client::{Client, Failed};
use crate::ledger::{Entry, Identity, Order, Outcome};
use crate::load::Shared;
use crate::violations::{Invariant, Violations};
use crate::watcher;

/// The queue of dead letters.
pub const DEAD_LETTER_QUEUE: &str = "buy_order.dead_letter";

/// How many orders of a run were lost or doubled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Acknowledged orders that are not in the write model as answered.
    pub lost: usize,
    /// Identities with more than one order.
    pub doubled: usize,
}

/// Repeats every request with an unknown outcome twice: the first repeat must yield an order, the second the same answer.
pub async fn repeat_unknown(shared: &Shared) {
    const MAX_IN_FLIGHT: usize = 16;
    let mut seen = HashSet::new();
    let unknown = shared.ledger.entries().into_iter().filter_map(|entry| {
        let is_new = matches!(entry.outcome, Outcome::Unknown(_)) && seen.insert(entry.identity.clone());
        is_new.then_some(entry.identity)
    });
    stream::iter(unknown.collect::<Vec<_>>())
        .for_each_concurrent(MAX_IN_FLIGHT, async |identity| {
            let first = shared.place(&identity, &identity.amount(), 0).await;
            let again = shared.place(&identity, &identity.short_amount(), 1).await;
            if matches!(first, Outcome::Unknown(_)) || first != again {
                shared.violations.add(
                    Invariant::I7,
                    format!("{identity:?} repeated was answered {first:?} and then {again:?}"),
                );
            }
        })
        .await;
}

/// Checks the databases, the pages and the queues. Returns the damage by fault, indexed as in [`Entry::fault`].
///
/// # Errors
/// When a server does not answer, which no longer has an excuse.
pub async fn check(
    cluster: &Cluster,
    shared: &Shared,
    poisoned: &[Vec<u8>],
) -> anyhow::Result<HashMap<Option<usize>, Damage>> {
    let violations = &shared.violations;
    let orders = books::orders(cluster.write_model()).await?;
    let keys = books::keys(cluster.write_model()).await?;
    let entries = shared.ledger.entries();
    let damage = Book::new(&orders, &keys).check(&entries, violations);
    if let Some(what) = watcher::total(cluster.write_model()).await? {
        violations.add(Invariant::I3, what);
    }
    compare(
        &orders,
        &books::projected(cluster.read_model()).await?,
        violations,
    );
    let depth = books::outbox_depth(cluster.write_model()).await?;
    if depth > 0 {
        violations.add(Invariant::I5, format!("{depth} events are still in the outbox"));
    }
    check_dead_letters(cluster, poisoned, violations).await?;
    check_pages(&shared.client, &orders, violations).await?;
    let in_time_order = orders
        .windows(2)
        .all(|pair| pair[0].created_at <= pair[1].created_at);
    if !in_time_order && !shared.misdated.load(Ordering::Relaxed) {
        violations.add(Invariant::I6, "the order of ids is not the order of times");
    }
    for pool in [cluster.write_model(), cluster.read_model()] {
        check_idle(pool, violations).await?;
    }
    Ok(damage)
}

async fn check_idle(pool: &PgPool, violations: &Violations) -> anyhow::Result<()> {
    let idle = watcher::idle_in_transaction(pool, 1).await?;
    if idle > 0 {
        violations.add(
            Invariant::I10,
            format!("{idle} connections are idle in a transaction"),
        );
    }
    Ok(())
}

/// The orders of the write model, indexed as clients identify them.
struct Book<'a> {
    orders: HashMap<i64, &'a Row>,
    ids: HashMap<(String, String, Uuid), Vec<i64>>,
}

impl<'a> Book<'a> {
    fn new(orders: &'a [Row], keys: &[Key]) -> Self {
        let mut ids: HashMap<_, Vec<i64>> = HashMap::new();
        for key in keys {
            let name = (
                key.currency.clone(),
                key.currency_amount.clone(),
                key.idempotence_key,
            );
            ids.entry(name).or_default().push(key.buy_order_id);
        }
        Self {
            orders: orders.iter().map(|row| (row.id, row)).collect(),
            ids,
        }
    }

    /// The ids of the orders with this identity.
    fn ids_of(&self, identity: &Identity) -> &[i64] {
        let name = (identity.currency.to_owned(), identity.amount(), identity.key);
        self.ids.get(&name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Checks I1 and I2.
    fn check(&self, entries: &[Entry], violations: &Violations) -> HashMap<Option<usize>, Damage> {
        let mut damage: HashMap<Option<usize>, Damage> = HashMap::new();
        let mut told: HashMap<&Identity, HashSet<&Order>> = HashMap::new();
        for entry in entries {
            let orders = told.entry(&entry.identity).or_default();
            if let Outcome::Acknowledged(order) = &entry.outcome {
                let in_book = match self.ids_of(&entry.identity) {
                    [id] => self.orders.get(id).is_some_and(|row| equals(row, order)),
                    _ => false,
                };
                if !in_book {
                    damage.entry(entry.fault).or_default().lost += 1;
                    violations.add(
                        Invariant::I1,
                        format!("not in the write model as it was answered: {entry:?}"),
                    );
                }
                if orders.insert(order) && orders.len() == 2 {
                    damage.entry(entry.fault).or_default().doubled += 1;
                    violations.add(
                        Invariant::I2,
                        format!("answered with two orders: {:?}", entry.identity),
                    );
                }
            }
        }
        self.check_refused(entries, violations);
        self.check_unrequested(&told, violations);
        damage
    }

    /// An identity whose every request was refused must have no order.
    fn check_refused(&self, entries: &[Entry], violations: &Violations) {
        let mut only_refused: HashMap<&Identity, bool> = HashMap::new();
        for entry in entries {
            *only_refused.entry(&entry.identity).or_insert(true) &= entry.outcome == Outcome::Refused;
        }
        for (identity, _) in only_refused.iter().filter(|(_, only)| **only) {
            if !self.ids_of(identity).is_empty() {
                violations.add(
                    Invariant::I2,
                    format!("refused, but in the write model: {identity:?}"),
                );
            }
        }
    }

    /// Every order belongs to exactly one identity that a client asked for.
    fn check_unrequested(&self, told: &HashMap<&Identity, HashSet<&Order>>, violations: &Violations) {
        let mut owners: HashMap<i64, usize> = HashMap::new();
        for identity in told.keys() {
            let ids = self.ids_of(identity);
            if ids.len() > 1 {
                violations.add(
                    Invariant::I2,
                    format!("{} orders in the write model for {identity:?}", ids.len()),
                );
            }
            for id in ids {
                *owners.entry(*id).or_default() += 1;
            }
        }
        for (id, row) in &self.orders {
            match owners.get(id) {
                Some(1) => {}
                Some(owners) => violations.add(Invariant::I2, format!("{owners} requests own {row:?}")),
                None => violations.add(Invariant::I2, format!("no client asked for {row:?}")),
            }
        }
    }
}

fn equals(row: &Row, order: &Order) -> bool {
    let expected = Order {
        id: row.external_id,
        created_at: row.created_at.clone(),
        currency: row.currency.clone(),
        currency_amount: row.currency_amount.clone(),
        btc_rate: row.btc_rate.clone(),
        btc_amount: row.btc_amount.clone(),
    };
    expected == *order
}

/// Checks I4.
fn compare(orders: &[Row], projected: &[Row], violations: &Violations) {
    if orders == projected {
        return;
    }
    let written: HashMap<i64, &Row> = orders.iter().map(|row| (row.id, row)).collect();
    let read: HashMap<i64, &Row> = projected.iter().map(|row| (row.id, row)).collect();
    for row in orders.iter().filter(|row| read.get(&row.id) != Some(row)) {
        violations.add(
            Invariant::I4,
            format!("the read model has {:?} for {row:?}", read.get(&row.id)),
        );
    }
    for row in projected.iter().filter(|row| !written.contains_key(&row.id)) {
        violations.add(Invariant::I4, format!("only in the read model: {row:?}"));
    }
}

/// Checks the dead letters of I5.
async fn check_dead_letters(
    cluster: &Cluster,
    poisoned: &[Vec<u8>],
    violations: &Violations,
) -> anyhow::Result<()> {
    // More than expected, so that unexpected ones are seen.
    let max = u32::try_from(poisoned.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1000);
    let mut letters: Vec<Vec<u8>> = cluster
        .peek_messages(DEAD_LETTER_QUEUE, max)
        .await?
        .into_iter()
        .map(|letter| letter.payload)
        .collect();
    let mut expected = poisoned.to_vec();
    letters.sort_unstable();
    expected.sort_unstable();
    if letters != expected {
        let show = |bodies: &[Vec<u8>]| -> Vec<String> {
            let short = |body: &Vec<u8>| String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
            bodies.iter().map(short).collect()
        };
        violations.add(
            Invariant::I5,
            format!(
                "the dead letters are {:?}, the poisoned messages are {:?}",
                show(&letters),
                show(&expected)
            ),
        );
    }
    Ok(())
}

/// Checks I6: now that nothing changes, the pages must show all orders, newest first.
async fn check_pages(client: &Client, orders: &[Row], violations: &Violations) -> anyhow::Result<()> {
    const PAGE_SIZE: usize = 1000;
    let (mut shown, mut after) = (Vec::new(), None);
    loop {
        let page = match client.page(after, PAGE_SIZE, 0).await {
            Ok(page) => page,
            Err(Failed::NotAccepted(why) | Failed::NotAnswered(why) | Failed::Wrong(why)) => {
                anyhow::bail!("a page was not answered: {why}")
            }
        };
        let full = page.rows.len() == PAGE_SIZE;
        shown.extend(page.rows);
        after = page.last_reference;
        if !full {
            break;
        }
    }
    let right = shown.len() == orders.len()
        && orders
            .iter()
            .rev()
            .zip(&shown)
            .all(|(row, order)| equals(row, order));
    if !right {
        violations.add(
            Invariant::I6,
            format!(
                "the pages show {} orders, and the write model holds {}, or their order differs",
                shown.len(),
                orders.len()
            ),
        );
    }
    Ok(())
}
