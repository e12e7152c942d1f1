//! Which containers reach which ports, tried from inside each container.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;

use anyhow::{anyhow, ensure};

use super::Deployment;
use crate::inside;
use crate::project::Container;

/// Ports, with the containers that may reach them.
const PORTS: [(&str, u16, &[&str]); 14] = [
    ("write_model", 5432, &["migration", "create_buy_order"]),
    (
        "read_model",
        5432,
        &["migration", "read_model_sync", "fetch_buy_orders"],
    ),
    ("queue", 5671, OF_THE_BROKER),
    // Erlang's own, which want its cookie.
    ("queue", 4369, OF_THE_BROKER),
    ("queue", 25672, OF_THE_BROKER),
    // Without TLS.
    ("queue", 5672, &[]),
    // The management interface, and metrics.
    ("queue", 15672, &[]),
    ("queue", 15692, &[]),
    (
        "log",
        24224,
        &[
            "migration",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
        ],
    ),
    (
        "create_buy_order",
        8080,
        &[
            "entry",
            "log",
            "migration",
            "btc_price",
            "read_model_sync",
            "fetch_buy_orders",
            "write_model",
            "queue",
        ],
    ),
    (
        "fetch_buy_orders",
        8080,
        &[
            "entry",
            "log",
            "migration",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "read_model",
        ],
    ),
    (
        "btc_price",
        8080,
        &[
            "price_simulator",
            "log",
            "migration",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
        ],
    ),
    (
        "migration",
        8080,
        &[
            "log",
            "btc_price",
            "create_buy_order",
            "read_model_sync",
            "fetch_buy_orders",
            "write_model",
            "read_model",
            "queue",
        ],
    ),
    ("price_simulator", 8080, &["btc_price"]),
];

const OF_THE_BROKER: &[&str] = &["migration", "create_buy_order", "read_model_sync"];

/// Containers that can open connections to the world outside.
const OUTWARD: [&str; 5] = [
    "btc_price",
    "create_buy_order",
    "fetch_buy_orders",
    "entry",
    "price_simulator",
];

impl Deployment {
    pub(crate) fn a_container_reaches_what_it_needs_and_nothing_else(&self) -> anyhow::Result<()> {
        let containers = self.project.containers(None)?;
        thread::scope(|scope| {
            let checks: Vec<_> = PORTS
                .iter()
                .map(|port| scope.spawn(|| self.is_reached_by(&containers, port)))
                .collect();
            let mut outcomes = checks.into_iter().map(|check| check.join());
            outcomes.try_for_each(|outcome| outcome.map_err(|_| anyhow!("a check panicked"))?)
        })?;
        let mut outward = BTreeSet::new();
        for container in &containers {
            if container.has_a_way_out()? {
                outward.insert(container.service());
            }
        }
        ensure!(outward == OUTWARD.into(), "{outward:?} reach the world outside");
        Ok(())
    }

    /// Whether these containers, and no others, reach this port. All try at once, because what is dropped is noticed only after a while.
    fn is_reached_by(
        &self,
        containers: &[Container],
        (server, port, allowed): &(&str, u16, &[&str]),
    ) -> anyhow::Result<()> {
        let addresses = self.container(server)?.addresses();
        let reaches = |container: &Container| {
            let mut sockets = addresses.iter().map(|address| SocketAddr::new(*address, *port));
            sockets.any(|socket| inside::connect(container, socket).is_ok())
        };
        let others = containers
            .iter()
            .filter(|container| container.service() != *server);
        let reaching: BTreeSet<&str> = thread::scope(|scope| {
            let attempts: Vec<_> = others
                .map(|container| scope.spawn(|| (container.service(), reaches(container))))
                .collect();
            let outcomes = attempts.into_iter().filter_map(|attempt| attempt.join().ok());
            outcomes
                .filter_map(|(service, reached)| reached.then_some(service))
                .collect()
        });
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        ensure!(
            reaching == allowed,
            "{server}:{port} is reached by {reaching:?}, not by {allowed:?}"
        );
        Ok(())
    }
}
