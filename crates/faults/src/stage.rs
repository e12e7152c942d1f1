//! The environment of a scenario: a cluster under load. It makes faults and measures recovery.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cluster::{Cluster, Service};
use common::money::Currency;
use futures_util::future::join_all;

use crate::ledger::Outcome;
use crate::load::{Shared, new_order_in};
use crate::violations::Invariant;

/// Recovery is promised within this time.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// A cluster that has not recovered by then counts as lost.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// Pause between two faults, in which the checks run without a fault.
const CALM: Duration = Duration::from_millis(1_500);

/// A probe that takes longer counts as failed.
const SLOW_PROBE: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(50);

/// A fault that was made.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind: one row of the report.
    pub kind: String,
    /// What it affected.
    pub target: String,
    /// From its end until everything worked again.
    pub recovered_after: Duration,
}

/// How long recovery took, and how the last probe failed.
struct Recovered {
    recovered_after: Duration,
    last: String,
}

/// Where the time of a probe went.
struct Laps {
    last: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Laps {
    fn from(began: Instant) -> Self {
        Self {
            last: began,
            ended: Vec::new(),
        }
    }

    fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.ended.push((name, now - self.last));
        self.last = now;
    }
}

impl fmt::Display for Laps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let laps: Vec<String> = self
            .ended
            .iter()
            .map(|(name, took)| format!("{name} within {took:.1?}"))
            .collect();
        formatter.write_str(&laps.join(", "))
    }
}

/// The environment of a scenario.
#[derive(Debug)]
pub struct Stage {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The only source of randomness in a scenario, so that its seed repeats the run.
    pub random: fastrand::Rng,
    /// The clients, with the answers that they got.
    pub shared: Arc<Shared>,
    /// Bodies of messages that were poisoned on purpose. At the end exactly these must be dead letters.
    pub poisoned: Vec<Vec<u8>>,
    /// The faults so far.
    pub faults: Vec<Fault>,
    title: String,
}

impl Stage {
    /// A stage that prints lines that begin with `title`.
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

    /// Runs `work`, which makes a fault and ends it, then waits until everything works again: each service is healthy, and an order in each
    /// currency that is placed with each replica is accepted and shown on the pages.
    ///
    /// # Errors
    /// When the fault could not be made, or the cluster does not recover at all.
    pub async fn fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        self.run_fault(kind, target, work, false).await
    }

    /// As [`Stage::fault`], for a fault that `work` makes and that never ends: everything must work again all the same. It is checked for as
    /// long as recovery may take, because not every request meets the fault.
    ///
    /// # Errors
    /// As there.
    pub async fn endless_fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        self.run_fault(kind, target, work, true).await
    }

    /// As [`Stage::fault`], for a fault during which every order must still be accepted.
    ///
    /// # Errors
    /// As there.
    pub async fn harmless_fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let index = self.faults.len();
        self.fault(kind, target, work).await?;
        for entry in self.shared.ledger.entries() {
            if entry.fault == Some(index) && matches!(entry.outcome, Outcome::Unknown(_)) {
                self.shared.violations.add(
                    Invariant::I0,
                    format!("{kind} {target}: an order was not accepted: {entry:?}"),
                );
            }
        }
        Ok(())
    }

    /// All services, in random order.
    pub fn services(&mut self) -> Vec<Service> {
        let mut services = Service::OF_ORDERS.to_vec();
        self.random.shuffle(&mut services);
        services
    }

    /// Waits while a fault lasts.
    pub async fn last(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn run_fault(
        &mut self,
        kind: &str,
        target: &str,
        work: impl Future<Output = anyhow::Result<()>>,
        endless: bool,
    ) -> anyhow::Result<()> {
        let name = format!("{kind} {target}");
        let index = self.faults.len();
        self.faults.push(Fault {
            kind: kind.to_owned(),
            target: target.to_owned(),
            recovered_after: Duration::ZERO,
        });
        self.shared.ledger.set_active_fault(Some(index));
        work.await
            .with_context(|| format!("could not make the fault: {name}"))?;
        let recovered = if endless {
            self.recover_for_good().await
        } else {
            self.recover().await
        };
        let Recovered {
            recovered_after,
            last,
        } = recovered.context(name.clone())?;
        self.shared.ledger.set_active_fault(None);
        self.faults[index].recovered_after = recovered_after;
        println!("{}: {name}: recovered after {recovered_after:.1?}", self.title);
        if recovered_after > RECOVERY_LIMIT {
            self.shared.violations.add(
                Invariant::I8,
                format!("{name}: recovered after {recovered_after:.1?}; the last probe before that: {last}"),
            );
        }
        Self::last(CALM).await;
        Ok(())
    }

    async fn recover(&mut self) -> anyhow::Result<Recovered> {
        let ended = Instant::now();
        let mut last = String::from("none failed");
        while let Some(why_not) = self.probe(&mut Laps::from(Instant::now())).await {
            if ended.elapsed() > GIVEN_UP_AFTER {
                bail!("no recovery within {GIVEN_UP_AFTER:?}: {why_not}");
            }
            last = why_not;
            tokio::time::sleep(PAUSE).await;
        }
        let recovered_after = ended.elapsed();
        Ok(Recovered {
            recovered_after,
            last,
        })
    }

    /// Probes for [`RECOVERY_LIMIT`], and then until everything works. Recovery ended with the last probe that failed or was slow.
    async fn recover_for_good(&mut self) -> anyhow::Result<Recovered> {
        let began = Instant::now();
        let mut recovered_after = Duration::ZERO;
        let mut last = String::from("none failed");
        loop {
            let asked = Instant::now();
            let mut probed = Laps::from(asked);
            let mut why_not = self.probe(&mut probed).await;
            for service in Service::OF_ORDERS {
                if why_not.is_none() {
                    let ready = self.ask(service, "/readyz").await;
                    why_not = ready
                        .err()
                        .map(|why| format!("{} is not ready: {why:#}", service.name()));
                }
            }
            let took = asked.elapsed();
            if why_not.is_some() || took > SLOW_PROBE {
                recovered_after = began.elapsed();
                let why_not = why_not.as_deref().unwrap_or("slow");
                last = format!("{why_not}, after {took:.1?} ({probed})");
            }
            match why_not {
                Some(why_not) if began.elapsed() > GIVEN_UP_AFTER => {
                    bail!("no recovery within {GIVEN_UP_AFTER:?}: {why_not}")
                }
                None if began.elapsed() > RECOVERY_LIMIT => {
                    return Ok(Recovered {
                        recovered_after,
                        last,
                    });
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Checks whether everything works. Returns the reason if not.
    async fn probe(&mut self, laps: &mut Laps) -> Option<String> {
        for service in Service::OF_ORDERS {
            if let Err(why) = self.ask(service, "/healthcheck").await {
                return Some(format!("{} is not healthy: {why:#}", service.name()));
            }
        }
        laps.end("healthy");
        let mut orders = Vec::new();
        for replica in 0..self.shared.client.create_replicas() {
            // Of each currency, because prices fail and recover by currency.
            orders.extend(Currency::ALL.map(|currency| (replica, new_order_in(currency, &mut self.random))));
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
        laps.end("accepted");
        let began = Instant::now();
        for id in last {
            while !self.shared.client.shown_by_all(id).await {
                if began.elapsed() > GIVEN_UP_AFTER {
                    return Some(format!("order {id} is not shown"));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        laps.end("shown");
        None
    }

    async fn ask(&self, service: Service, path: &str) -> anyhow::Result<()> {
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
}

/// The answer of a service at `/readyz`: status and body.
///
/// # Errors
/// When it does not answer.
pub async fn readiness(cluster: &Cluster, service: Service) -> anyhow::Result<(u16, String)> {
    let url = cluster.url(service) + "/readyz";
    let limit = Duration::from_secs(3);
    let answer = cluster.http().get(url).timeout(limit).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
