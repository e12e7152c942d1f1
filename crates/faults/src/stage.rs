//! What a scenario acts on: a cluster under load, and a clock for its recovery.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cluster::{Cluster, Service};
use futures_util::future::join_all;

use crate::ledger::Outcome;
use crate::load::{CURRENCIES, Shared, new_order_in};
use crate::violations::Invariant;

/// Recovery is promised within this time.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// A cluster that has not recovered by then never will.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// Between two faults: whether all is well without one is watched, too.
const CALM: Duration = Duration::from_millis(1_500);

/// What works asks and answers within this time.
const AT_ONCE: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(50);

/// A fault that was at work.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind: one row of the report.
    pub kind: String,
    /// What it struck.
    pub target: String,
    /// From its end until everything worked again.
    pub recovered_after: Duration,
}

/// Where a scenario plays.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The only source of chance in a scenario: its seed repeats the run.
    pub random: fastrand::Rng,
    /// The clients, with what they were told.
    pub shared: Arc<Shared>,
    /// Bodies of messages that were poisoned on purpose: just these have to be dead letters at the end.
    pub poisoned: Vec<Vec<u8>>,
    /// The faults so far.
    pub faults: Vec<Fault>,
    title: String,
}

impl Stage {
    /// A stage whose lines begin with `title`.
    #[must_use]
    pub fn new(title: String, cluster: Arc<Cluster>, shared: Arc<Shared>, random: fastrand::Rng) -> Self {
        Self {
            cluster,
            random,
            shared,
            poisoned: Vec::new(),
            faults: Vec::new(),
            title,
        }
    }

    /// Has a fault at work from the begin to the end of `work`, and then waits until everything works again: each service is healthy, and an
    /// order in each currency that is placed with each replica is accepted and shown on the pages.
    ///
    /// # Errors
    /// When the fault could not be made, or the cluster does not recover at all.
    pub async fn fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let (number, named) = self.begin(kind, target);
        work.await
            .with_context(|| format!("could not have the fault: {named}"))?;
        let recovered_after = self.recover().await.context(named.clone())?;
        self.conclude(number, &named, recovered_after).await;
        Ok(())
    }

    /// As [`Stage::fault`], for one that `work` makes and that never ends: everything must work again all the same. It is looked at for as
    /// long as recovery may take, as not every request meets the fault.
    ///
    /// # Errors
    /// As there.
    pub async fn endless_fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let (number, named) = self.begin(kind, target);
        work.await
            .with_context(|| format!("could not have the fault: {named}"))?;
        let recovered_after = self.settle().await.context(named.clone())?;
        self.conclude(number, &named, recovered_after).await;
        Ok(())
    }

    /// As [`Stage::fault`], for one that must not keep a single order from being accepted.
    ///
    /// # Errors
    /// As there.
    pub async fn harmless_fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let number = self.faults.len();
        self.fault(kind, target, work).await?;
        for entry in self.shared.ledger.entries() {
            if entry.fault == Some(number) && matches!(entry.outcome, Outcome::Unknown(_)) {
                self.shared.violations.add(
                    Invariant::I0,
                    format!("{kind} {target} kept an order from being accepted: {entry:?}"),
                );
            }
        }
        Ok(())
    }

    /// All services, in an order of chance.
    pub fn services(&mut self) -> Vec<Service> {
        let mut services = Service::ALL.to_vec();
        self.random.shuffle(&mut services);
        services
    }

    /// Lets a fault last.
    pub async fn last(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn begin(&mut self, kind: &str, target: &str) -> (usize, String) {
        let number = self.faults.len();
        self.faults.push(Fault {
            kind: kind.to_owned(),
            target: target.to_owned(),
            recovered_after: Duration::ZERO,
        });
        self.shared.ledger.fault_at_work(Some(number));
        (number, format!("{kind} {target}"))
    }

    async fn conclude(&mut self, number: usize, named: &str, recovered_after: Duration) {
        self.shared.ledger.fault_at_work(None);
        self.faults[number].recovered_after = recovered_after;
        self.say(&format!("{named}: recovered after {recovered_after:.1?}"));
        if recovered_after > RECOVERY_LIMIT {
            self.shared.violations.add(
                Invariant::I8,
                format!("{named}: recovered after {recovered_after:.1?}"),
            );
        }
        Self::last(CALM).await;
    }

    async fn recover(&mut self) -> anyhow::Result<Duration> {
        let ended = Instant::now();
        loop {
            let why_not = match self.probe().await {
                None => return Ok(ended.elapsed()),
                Some(why_not) => why_not,
            };
            if ended.elapsed() > GIVEN_UP_AFTER {
                bail!("no recovery within {GIVEN_UP_AFTER:?}: {why_not}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks again and again for [`RECOVERY_LIMIT`], and then until everything works; answers when something failed or was slow last.
    async fn settle(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut recovered_after = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let mut why_not = self.probe().await;
            for service in Service::ALL {
                if why_not.is_none() {
                    let ready = self.asked(service, "/readyz").await;
                    why_not = ready
                        .err()
                        .map(|why| format!("{} is not ready: {why:#}", service.name()));
                }
            }
            if why_not.is_some() || asked.elapsed() > AT_ONCE {
                recovered_after = began.elapsed();
            }
            match why_not {
                Some(why_not) if began.elapsed() > GIVEN_UP_AFTER => {
                    bail!("no recovery within {GIVEN_UP_AFTER:?}: {why_not}")
                }
                None if began.elapsed() > RECOVERY_LIMIT => return Ok(recovered_after),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Why not everything works, if so.
    async fn probe(&mut self) -> Option<String> {
        for service in Service::ALL {
            if let Err(why) = self.asked(service, "/healthcheck").await {
                return Some(format!("{} is not healthy: {why:#}", service.name()));
            }
        }
        let mut orders = Vec::new();
        for replica in 0..self.shared.client.create_replicas() {
            // Of each currency, because prices fail and recover by currency.
            orders.extend(CURRENCIES.map(|currency| (replica, new_order_in(currency, &mut self.random))));
        }
        let placed = orders
            .iter()
            .map(async |(replica, identity)| self.shared.place(identity, &identity.amount(), *replica).await);
        let mut last = Vec::new();
        for outcome in join_all(placed).await {
            match outcome {
                Outcome::Acknowledged(order) => last.push(order.id),
                other => return Some(format!("an order was answered {other:?}")),
            }
        }
        let began = Instant::now();
        for id in last {
            while !self.shared.client.shown_by_all(id).await {
                if began.elapsed() > GIVEN_UP_AFTER {
                    return Some(format!("order {id} is not shown"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        None
    }

    async fn asked(&self, service: Service, path: &str) -> anyhow::Result<()> {
        let url = self.cluster.url(service) + path;
        let limit = Duration::from_secs(3);
        self.cluster
            .http()
            .get(url)
            .timeout(limit)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{}: {what}", self.title);
    }
}

/// What a service says at `/readyz`: status and body.
///
/// # Errors
/// When it does not answer.
pub async fn readiness(cluster: &Cluster, service: Service) -> anyhow::Result<(u16, String)> {
    let url = cluster.url(service) + "/readyz";
    let limit = Duration::from_secs(3);
    let answer = cluster.http().get(url).timeout(limit).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
