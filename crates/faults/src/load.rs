//! The load: clients that place orders and read pages while faults are active.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use common::money::Currency;
use futures_util::future::join_all;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Client, Failed};
use crate::ledger::{Identity, Ledger, Outcome};
use crate::violations::{Invariant, Violations};
use crate::voids::Voids;

/// The number of clients that place orders, each one request after the other.
const BUYERS: usize = 8;

/// The number of clients that read all pages, again and again.
const WALKERS: usize = 2;

/// Orders per page of a walk.
const PAGE_SIZE: usize = 200;

/// The maximum of a small order, in hundredths: less than 0.006 BTC, so that a run stays below the cap.
pub(crate) const MAX_SMALL_ORDER: u64 = 20_000;

/// 45 BTC at the rate of the simulator, in hundredths. Placed first, so that [`OVER_THE_CAP`] never fits.
const BASE_ORDER: u64 = 218_154_960;

/// 56 BTC, in hundredths.
const OVER_THE_CAP: u64 = 271_481_728;

/// How often clients that rest check whether they may go on.
const NAP: Duration = Duration::from_millis(20);

/// What the clients of a run share.
#[derive(Debug)]
pub struct Shared {
    /// How they reach the cluster.
    pub client: Client,
    /// What they asked and were told.
    pub ledger: Ledger,
    /// What the operator did meanwhile.
    pub voids: Voids,
    /// Violations that they saw.
    pub violations: Violations,
    /// The number of completed walks through all pages.
    pub walks: AtomicU64,
    /// Whether the clock of the write model was wrong: then a later order may have an earlier time.
    pub misdated: AtomicBool,
    /// Whether clients send nothing, for faults that affect idle connections.
    pub resting: AtomicBool,
    /// Held by each walk through the pages, and for writing while the read model is rebuilt, when pages lack orders.
    pub walking: RwLock<()>,
    stopping: AtomicBool,
}

impl Shared {
    /// The state shared by clients of this cluster.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            ledger: Ledger::default(),
            voids: Voids::default(),
            violations: Violations::default(),
            walks: AtomicU64::new(0),
            misdated: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            walking: RwLock::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Waits while clients rest.
    async fn wait_while_resting(&self) {
        while self.resting.load(Ordering::Relaxed) {
            tokio::time::sleep(NAP).await;
        }
    }

    /// Places an order and records the outcome.
    pub async fn place(&self, identity: &Identity, amount: &str, replica: usize) -> Outcome {
        let sent = self.ledger.sent();
        let (outcome, wrong) = self.client.place(identity, amount, replica).await;
        if let Some(what) = wrong {
            self.violations
                .add(Invariant::I0, format!("{identity:?} was answered {what}"));
        }
        if self.ledger.record(identity.clone(), &sent, outcome.clone()) {
            self.violations.add(
                Invariant::I0,
                format!("{identity:?} failed while no fault was active: {outcome:?}"),
            );
        }
        outcome
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Places a large order, so that the cap is near, and starts the clients.
    ///
    /// # Errors
    /// When the first order is not accepted.
    pub async fn start(shared: &Arc<Shared>, random: &mut fastrand::Rng) -> anyhow::Result<Self> {
        let base = Identity {
            currency: "USD",
            cents: BASE_ORDER,
            key: random_key(random),
        };
        let outcome = shared.place(&base, &base.amount(), 0).await;
        if !matches!(outcome, Outcome::Acknowledged(_)) {
            bail!("the first order was not accepted: {outcome:?}");
        }
        let mut clients = JoinSet::new();
        for number in 0..BUYERS {
            clients.spawn_local(buy(Arc::clone(shared), random.fork(), number));
        }
        for number in 0..WALKERS {
            clients.spawn_local(walk(Arc::clone(shared), random.fork(), number));
        }
        Ok(Self {
            shared: Arc::clone(shared),
            clients,
        })
    }

    /// Lets every client finish its request, and stops them.
    pub async fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            if let Err(panic) = ended {
                self.shared
                    .violations
                    .add(Invariant::I0, format!("a client panicked: {panic}"));
            }
        }
    }
}

/// A new small order.
#[must_use]
pub fn new_order(random: &mut fastrand::Rng) -> Identity {
    let currency = Currency::ALL[random.usize(..Currency::ALL.len())];
    new_order_in(currency, random)
}

/// A new small order in this currency.
#[must_use]
pub fn new_order_in(currency: Currency, random: &mut fastrand::Rng) -> Identity {
    Identity {
        currency: currency.iso3(),
        cents: random.u64(1..=MAX_SMALL_ORDER),
        key: random_key(random),
    }
}

pub(crate) fn random_key(random: &mut fastrand::Rng) -> Uuid {
    uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

async fn buy(shared: Arc<Shared>, mut random: fastrand::Rng, number: usize) {
    while !shared.stopping.load(Ordering::Relaxed) {
        shared.wait_while_resting().await;
        let identity = match random.u8(..100) {
            0..70 => new_order(&mut random),
            70..90 => shared
                .ledger
                .recent(&mut random)
                .unwrap_or_else(|| new_order(&mut random)),
            90..95 => {
                let order = new_order(&mut random);
                at_once(&shared, &order, random.usize(2..=4)).await;
                continue;
            }
            _ => Identity {
                currency: "USD",
                cents: OVER_THE_CAP,
                key: random_key(&mut random),
            },
        };
        let amount = if random.bool() {
            identity.amount()
        } else {
            identity.short_amount()
        };
        let replica = number + random.usize(..2);
        shared.place(&identity, &amount, replica).await;
        think(&mut random, 40..120).await;
    }
}

/// Sends the same order several times at once to different replicas.
async fn at_once(shared: &Shared, identity: &Identity, times: usize) {
    let amount = identity.amount();
    join_all((0..times).map(|replica| shared.place(identity, &amount, replica))).await;
}

async fn think(random: &mut fastrand::Rng, range_ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.u64(range_ms))).await;
}

/// Reads all pages again and again. Each walk must show all orders that the one before has shown, but for those that are being voided.
async fn walk(shared: Arc<Shared>, mut random: fastrand::Rng, number: usize) {
    let mut known = HashSet::new();
    while !shared.stopping.load(Ordering::Relaxed) {
        let walking = shared.walking.read().await;
        let walked = walk_once(&shared, &mut random, number).await;
        drop(walking);
        match walked {
            Ok(seen) => {
                let missing = known.difference(&seen);
                let missing = missing.filter(|id| !shared.voids.may_be_voided(**id)).count();
                if missing > 0 {
                    shared.violations.add(
                        Invariant::I6,
                        format!("a walk missed {missing} orders that a walk before it had shown"),
                    );
                }
                known = seen;
                shared.walks.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failed::NotAccepted(_) | Failed::NotAnswered(_)) => {}
            Err(Failed::Wrong(what)) => {
                shared
                    .violations
                    .add(Invariant::I0, format!("a page was answered {what}"));
            }
        }
        think(&mut random, 100..300).await;
    }
}

async fn walk_once(
    shared: &Shared,
    random: &mut fastrand::Rng,
    number: usize,
) -> Result<HashSet<Uuid>, Failed> {
    let mut seen = HashSet::new();
    let mut after = None;
    let mut last_created_at = None::<String>;
    loop {
        shared.wait_while_resting().await;
        let page = shared
            .client
            .page(after, PAGE_SIZE, number + random.usize(..2))
            .await?;
        for row in &page.rows {
            if !seen.insert(row.id) {
                shared
                    .violations
                    .add(Invariant::I6, format!("a walk showed order {} twice", row.id));
            }
            let misplaced = last_created_at
                .as_ref()
                .is_some_and(|newer| *newer < row.created_at);
            if misplaced && !shared.misdated.load(Ordering::Relaxed) {
                shared.violations.add(
                    Invariant::I6,
                    format!("order {} stands behind an older one", row.id),
                );
            }
            last_created_at = Some(row.created_at.clone());
        }
        if page.rows.len() < PAGE_SIZE {
            return Ok(seen);
        }
        after = page.last_reference;
        think(random, 5..30).await;
    }
}
