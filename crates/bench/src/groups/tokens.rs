//! The cost of a token: a process of `create_buy_order` that demands one, beside a process that does not.

use std::time::Duration;

use anyhow::Context as _;
use cluster::issuer::{self, KeysServer, SigningKey};
use cluster::{Cluster, Service, wait_until};

use crate::bench::{Bench, CONNECTIONS};
use crate::commits::wait_until_projected;
use crate::figures::figure;
use crate::processes::usage;
use crate::wrk::{Ask, Load};

/// Whether with a token. Each side comes first as often as the other, so that a trend of the machine favours neither.
const TURNS: [bool; 8] = [false, true, true, false, false, true, true, false];
const TURNS_QUICK: [bool; 2] = [false, true];
const TURN: Duration = Duration::from_secs(3);

/// A process and what it did in its turns.
struct Side {
    url: String,
    token: Option<String>,
    /// The sum of the rates of its turns.
    rates: f64,
    turns: f64,
    orders: f64,
    cpu: Duration,
}

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.cluster().await?;
    let key = SigningKey::es256()?;
    let keys_server = KeysServer::start([&key])?;
    let token = key.sign(&issuer::claims(1, issuer::ALL_SCOPES, 3600)?)?;
    let without = Side::new(cluster.start_extra(Service::CreateBuyOrder).await?, None);
    for (name, value) in issuer::variables(&keys_server.url()) {
        cluster.set_env(Service::CreateBuyOrder, name, &value);
    }
    let with = Side::new(cluster.start_extra(Service::CreateBuyOrder).await?, Some(token));
    cluster.set_env(Service::CreateBuyOrder, "AUTH_MODE", "none");
    with.wait_until_ready(&cluster).await?;

    let mut sides = [without, with];
    for demands in if bench.quick { &TURNS_QUICK[..] } else { &TURNS } {
        sides[usize::from(*demands)].place(bench, &cluster).await?;
    }
    for side in &sides {
        cluster.stop(&side.url).await?;
    }
    let [without, with] = sides;
    let other = "without, in turns";
    let figures = &mut bench.figures;
    let name = format!("{CONNECTIONS} connections, with a token");
    figures.add_against(name, (with.rate(), "/s"), (other, without.rate()));
    let name = "CPU of create_buy_order, with a token";
    figures.add_against(name, (with.cpu_us(), "µs"), (other, without.cpu_us()));
    Ok(())
}

impl Side {
    fn new(url: String, token: Option<String>) -> Self {
        Self {
            url,
            token,
            rates: 0.0,
            turns: 0.0,
            orders: 0.0,
            cpu: Duration::ZERO,
        }
    }

    /// Waits until it has read the issuer's keys.
    async fn wait_until_ready(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.url);
        wait_until("the keys are read", Duration::from_secs(30), async || {
            Ok(cluster.http().get(&url).send().await?.status().is_success())
        })
        .await
    }

    async fn place(&mut self, bench: &mut Bench, cluster: &Cluster) -> anyhow::Result<()> {
        let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, bench.duration().min(TURN));
        let pid = cluster.pid(&self.url).context("it does not run")?;
        let before = usage(pid)?.cpu;
        let outcome = bench
            .load_with_token(
                "orders with and without a token",
                &self.url,
                load,
                self.token.as_deref(),
            )
            .await?;
        self.cpu += usage(pid)?.cpu.saturating_sub(before);
        self.orders += figure(outcome.succeeded());
        self.rates += outcome.per_second();
        self.turns += 1.0;
        wait_until_projected(cluster).await
    }

    fn rate(&self) -> f64 {
        self.rates / self.turns
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.orders
    }
}
