//! Every `…_HOST` may be an IPv6 address.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, LogServer, Options, Service, wait_until};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(60);

/// Whether this machine has an IPv6 loopback address. If not, a message is written directly to the terminal, as cargo hides what tests print.
fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        let _ = writeln!(
            std::io::stderr(),
            "LEFT OUT: this machine has no IPv6 loopback address"
        );
    }
    has
}

/// A port on `::1` that forwards to a port of 127.0.0.1, on which the servers of tests listen.
async fn reachable_by_ipv6(port: &str) -> anyhow::Result<String> {
    let server = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let listener = TcpListener::bind("[::1]:0").await?;
    let port = listener.local_addr()?.port().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}

/// A cluster whose services reach everything only by IPv6, and listen on all addresses.
async fn cluster_by_ipv6(log: &LogServer) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await?;
    let log_port = reachable_by_ipv6(&log.port().to_string()).await?;
    for service in Service::OF_ORDERS {
        cluster.set_env(service, "SERVICE_HOST", "::");
        cluster.set_env(service, "LOGGING_HOST", "[::1]");
        cluster.set_env(service, "LOGGING_PORT", &log_port);
        let environment = cluster.environment(service)?;
        for (prefix, host) in [
            ("WRITE_MODEL_DB", "::1"),
            ("READ_MODEL_DB", "[::1]"),
            ("Q", "::1"),
            ("CB", "[::1]"),
        ] {
            if let Some(port) = environment.get(&format!("{prefix}_PORT")) {
                cluster.set_env(
                    service,
                    &format!("{prefix}_PORT"),
                    &reachable_by_ipv6(port).await?,
                );
                cluster.set_env(service, &format!("{prefix}_HOST"), host);
            }
        }
        cluster.set_env(service, "MIGRATION_HOST", "::1");
        cluster.set_env(service, "BTC_PRICE_HOST", "::1");
    }
    for service in Service::OF_ORDERS {
        cluster.start_service(service).await?;
    }
    Ok(cluster)
}

#[tokio::test]
async fn every_host_may_be_an_ipv6_address() -> anyhow::Result<()> {
    if !has_ipv6() {
        return Ok(());
    }
    let log = LogServer::start()?;
    let cluster = cluster_by_ipv6(&log).await?;
    let put = cluster.put_order(&cluster::new_order("USD", "1.00"));
    put.send().await?.error_for_status()?;
    wait_until("the order is in the page", LIMIT, async || {
        let page = cluster
            .http()
            .get(cluster.url(Service::FetchBuyOrders) + "/buy_orders");
        let page: Value = page.send().await?.error_for_status()?.json().await?;
        Ok(page["rows"].as_array().context("no rows")?.len() == 1)
    })
    .await?;
    wait_until("events arrive at the log", LIMIT, async || Ok(log.events() > 0)).await?;
    for service in Service::OF_ORDERS {
        let asked = cluster.admin(service, &["healthcheck"], "").await?;
        assert_eq!(asked.code, Some(0), "{service:?}: {asked:?}");
    }

    // Also if a service listens on a single address.
    cluster.stop(Service::FetchBuyOrders).await?;
    cluster.set_env(Service::FetchBuyOrders, "SERVICE_HOST", "[::1]");
    cluster.launch(Service::FetchBuyOrders)?;
    wait_until("the service on ::1 says that it is healthy", LIMIT, async || {
        let asked = cluster
            .admin(Service::FetchBuyOrders, &["healthcheck"], "")
            .await?;
        anyhow::ensure!(asked.code == Some(0), "{asked:?}");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_host_that_is_none_is_refused_by_name_before_anything_is_tried() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    for (service, names) in [
        (
            Service::Migration,
            &[
                "SERVICE_HOST",
                "WRITE_MODEL_DB_HOST",
                "READ_MODEL_DB_HOST",
                "LOGGING_HOST",
            ][..],
        ),
        (Service::BtcPrice, &["CB_HOST"]),
        (
            Service::CreateBuyOrder,
            &["MIGRATION_HOST", "BTC_PRICE_HOST", "Q_HOST"],
        ),
    ] {
        for name in names {
            cluster.set_env(service, name, "fe80::1%eth0");
        }
        let ended = cluster.admin(service, &[], "").await?;
        assert_eq!(ended.code, Some(1), "{service:?}: {ended:?}");
        for name in names {
            assert!(
                ended.stderr.contains(&format!("{name} is malformed")),
                "{name}: {ended:?}"
            );
        }
    }
    Ok(())
}
