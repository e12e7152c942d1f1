//! Compares the data in the databases, the queues and the pages with the answers that clients got. Runs when the load has ended and the
//! cluster is quiet.

#[cfg(test)]
mod tests;
mod voids;

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::atomic::Ordering;

use cluster::{Cluster, Service};
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
    let voids = books::voids(cluster.write_model()).await?;
    let entries = shared.ledger.entries();
    let book = Book::new(&orders, &keys);
    let damage = book.check(&entries, violations);
    voids::check(&book, &voids, &shared.voids.attempts(), &entries, violations);
    if let Some(what) = watcher::total(cluster.write_model()).await? {
        violations.add(Invariant::I3, what);
    }
    compare(
        &orders,
        &books::projected(cluster.read_model()).await?,
        |row| row.id,
        violations,
    );
    compare(
        &voids,
        &books::projected_voids(cluster.read_model()).await?,
        |void| void.id,
        violations,
    );
    let depth = books::outbox_depth(cluster.write_model()).await?;
    if depth > 0 {
        violations.add(Invariant::I5, format!("{depth} events are still in the outbox"));
    }
    check_dead_letters(cluster, poisoned, violations).await?;
    check_pages(&shared.client, &orders, violations).await?;
    if !shared.misdated.load(Ordering::Relaxed) {
        let in_time_order = orders
            .windows(2)
            .all(|pair| pair[0].created_at <= pair[1].created_at);
        if !in_time_order {
            violations.add(Invariant::I6, "the order of ids is not the order of times");
        }
        verify(cluster, violations).await?;
    }
    for pool in [cluster.write_model(), cluster.read_model()] {
        check_idle(pool, violations).await?;
    }
    Ok(damage)
}

/// Checks I4 with the commands of an operator. They tell rows that are too new from extra ones by the clock, which must be right.
async fn verify(cluster: &Cluster, violations: &Violations) -> anyhow::Result<()> {
    let checksums = cluster.admin(Service::CreateBuyOrder, &["checksums"], "").await?;
    let verify = ["verify", "--wait", "0"];
    let verified = cluster
        .admin(Service::ReadModelSync, &verify, &checksums.stdout)
        .await?;
    if verified.code != Some(0) {
        violations.add(
            Invariant::I4,
            format!(
                "verify says {verified:?}, after checksums said {}",
                checksums.stderr
            ),
        );
    }
    Ok(())
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

    /// Their external ids.
    fn external_ids_of(&self, identity: &Identity) -> impl Iterator<Item = Uuid> {
        let rows = self.ids_of(identity).iter().filter_map(|id| self.orders.get(id));
        rows.map(|row| row.external_id)
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

/// Checks I4: the rows of a kind are the same in both models.
fn compare<T: PartialEq + Debug>(
    written: &[T],
    projected: &[T],
    id: impl Fn(&T) -> i64,
    violations: &Violations,
) {
    if written == projected {
        return;
    }
    let read: HashMap<i64, &T> = projected.iter().map(|row| (id(row), row)).collect();
    for row in written.iter().filter(|row| read.get(&id(row)) != Some(row)) {
        violations.add(
            Invariant::I4,
            format!("the read model has {:?} for {row:?}", read.get(&id(row))),
        );
    }
    let known: HashSet<i64> = written.iter().map(&id).collect();
    for row in projected.iter().filter(|row| !known.contains(&id(row))) {
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

/// Checks I6: now that nothing changes, the pages must show all orders that are not voided, newest first.
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
    if let Some(what) = fault_of_pages(orders, &shown) {
        violations.add(Invariant::I6, what);
    }
    Ok(())
}

/// What is wrong with the orders that the pages show.
fn fault_of_pages(orders: &[Row], shown: &[Order]) -> Option<String> {
    let expected: Vec<&Row> = orders
        .iter()
        .rev()
        .filter(|row| row.voided_at.is_none())
        .collect();
    let right =
        shown.len() == expected.len() && expected.iter().zip(shown).all(|(row, order)| equals(row, order));
    let voided = orders.len() - expected.len();
    (!right).then(|| {
        format!(
            "the pages show {} orders, and the write model holds {} and {voided} voided ones, or their order differs",
            shown.len(),
            expected.len()
        )
    })
}
