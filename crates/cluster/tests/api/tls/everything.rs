//! The whole cluster, with TLS between all parts.

use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Options, PortLease, Service, wait_until};
use common::http::client::client;
use serde_json::Value;
use sqlx::PgPool;

use super::certificates::{Certificates, Shown};
use super::{LIMIT, broker, databases, peers};
use crate::entry::Entry;

use Service::{CreateBuyOrder, FetchBuyOrders};

#[tokio::test]
async fn an_order_is_placed_and_read_in_a_page_with_tls_between_all_parts() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    certificates.place("queue", Shown::Right)?;
    let port = PortLease::take()?;
    let options = Options {
        services: Vec::new(),
        ..Options::default()
    };
    let options = broker::with_encrypted_broker(options, &certificates, port.port());
    let cluster = Cluster::start(options).await?;
    databases::show(&cluster, &certificates.issue(Shown::Right)?).await?;
    databases::verify(&cluster, &certificates);
    broker::use_encrypted_broker(&cluster, &certificates, port.port());
    for service in Service::OF_ORDERS {
        certificates.place(service.name(), Shown::Right)?;
        peers::serve_tls(&cluster, &certificates, service);
        peers::ask_by_tls(&cluster, &certificates, service);
        cluster.start_service(service).await?;
    }

    let http = client(Duration::from_secs(30), Some(&certificates.ca_file()))?;
    let put = http.put(cluster.url(CreateBuyOrder) + "/buy_order");
    let order = cluster::new_order("USD", "123.45");
    let placed: Value = put.json(&order).send().await?.error_for_status()?.json().await?;
    let pages = cluster.url(FetchBuyOrders) + "/buy_orders";
    ensure!(pages.starts_with("https://"), "{pages}");
    wait_until("it is in the page", LIMIT, async || {
        let page: Value = http.get(&pages).send().await?.json().await?;
        Ok(page["rows"][0]["id"] == placed["buy_order"]["id"])
    })
    .await?;

    for pool in [cluster.write_model(), cluster.read_model()] {
        ensure!(plain_sessions(pool).await? == 0, "a session is not encrypted");
    }
    all_connections_to_the_broker_are_encrypted(&cluster).await?;
    entry_speaks_tls_to_the_services(&cluster, &certificates).await
}

/// Sessions of services without TLS; that of the harness is the administrator's.
async fn plain_sessions(pool: &PgPool) -> anyhow::Result<i64> {
    let count =
        "SELECT count(*) FILTER (WHERE NOT ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE usename NOT IN ('write_model', 'read_model')";
    let (plain, all): (i64, i64) = sqlx::query_as(count).fetch_one(pool).await?;
    ensure!(all > 0, "no service has a session");
    Ok(plain)
}

async fn all_connections_to_the_broker_are_encrypted(cluster: &Cluster) -> anyhow::Result<()> {
    let broker = cluster.queue();
    // The list is a few seconds old.
    wait_until("three encrypted connections", LIMIT, async || {
        let list = cluster.http().get(broker.api("vhosts/{vhost}/connections"));
        let list = list
            .basic_auth(&broker.user, Some(&broker.password))
            .send()
            .await?;
        let list: Vec<Value> = list.error_for_status()?.json().await?;
        let plain = list.iter().filter(|connection| connection["ssl"] != true);
        ensure!(plain.count() == 0 && list.len() == 3, "{list:?}");
        Ok(true)
    })
    .await
}

/// `entry` verifies them, and its own clients speak plain text to it.
async fn entry_speaks_tls_to_the_services(
    cluster: &Cluster,
    certificates: &Certificates,
) -> anyhow::Result<()> {
    let another = Certificates::new()?;
    for (authorities, host, status) in [
        (certificates, "localhost", 200),
        (certificates, "elsewhere.test", 503),
        (&another, "localhost", 503),
    ] {
        let settings = [
            ("SERVICE_TLS_CERT_FILE", "set"),
            ("EXTRA_CA_FILE", &authorities.ca_file().display().to_string()),
            ("CREATE_BUY_ORDER_HOST", host),
            ("FETCH_BUY_ORDERS_HOST", host),
        ];
        let [orders, pages] = [CreateBuyOrder, FetchBuyOrders].map(|service| cluster.url(service));
        let entry = Entry::start(
            orders.trim_start_matches("https://"),
            pages.trim_start_matches("https://"),
            &settings,
        )
        .await?;
        for url in [&entry.orders, &entry.pages] {
            let url = format!("{url}/healthcheck");
            wait_until("entry has checked the service", LIMIT, async || {
                let answer = cluster.http().get(&url).send().await?;
                ensure!(answer.status() == status, "{host}: {answer:?}");
                Ok(true)
            })
            .await?;
        }
    }
    Ok(())
}
