//! `MIGRATION_PROTOCOL=https` and `BTC_PRICE_PROTOCOL=https`: services that ask services.

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;

use super::certificates::{Certificates, Shown};
use super::{LIMIT, assert_no_restart, seen, waits_with};

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

/// A service shows the certificate of its own name.
pub(super) fn serve_tls(cluster: &Cluster, certificates: &Certificates, service: Service) {
    for (variable, file) in [("CERT", "crt"), ("KEY", "key")] {
        let path = certificates.path(&format!("{}.{file}", service.name()));
        let path = path.display().to_string();
        cluster.set_env(service, &format!("SERVICE_TLS_{variable}_FILE"), &path);
    }
}

/// A service asks others by HTTPS.
pub(super) fn ask_by_tls(cluster: &Cluster, certificates: &Certificates, service: Service) {
    let ca_file = certificates.ca_file().display().to_string();
    for (name, value) in [
        ("MIGRATION_PROTOCOL", "https"),
        ("MIGRATION_HOST", "localhost"),
        ("BTC_PRICE_PROTOCOL", "https"),
        ("BTC_PRICE_HOST", "localhost"),
        ("EXTRA_CA_FILE", &ca_file),
    ] {
        cluster.set_env(service, name, value);
    }
}

#[tokio::test]
async fn a_service_that_cannot_prove_who_it_is_is_refused_and_trusted_again_without_a_restart()
-> anyhow::Result<()> {
    let mut certificates = Certificates::new()?;
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await?;
    for service in [Migration, BtcPrice] {
        serve_tls(&cluster, &certificates, service);
        certificates.place(service.name(), Shown::OfAnotherAuthority)?;
        // Its own health check works with any certificate: see `docs/decisions/0017-tls-between-the-parts.md`.
        cluster.start_service(service).await?;
    }
    let waiting = [CreateBuyOrder, ReadModelSync, FetchBuyOrders];
    for service in waiting {
        ask_by_tls(&cluster, &certificates, service);
        cluster.launch(service)?;
    }
    for shown in Shown::WRONG {
        let seen = waiting.map(|service| seen(&cluster, service));
        certificates.place("migration", shown)?;
        for (service, seen) in waiting.into_iter().zip(seen) {
            let event = "migrations_service_connection_error";
            waits_with(&cluster, service, seen, event, shown.refusal()).await?;
        }
    }
    // EXTRA_CA_FILE is read again, too.
    certificates.change_authority()?;
    certificates.place("migration", Shown::Right)?;
    for service in waiting {
        cluster.wait_until_healthy(service).await?;
    }

    for shown in Shown::WRONG {
        let seen = seen(&cluster, CreateBuyOrder);
        certificates.place("btc_price", shown)?;
        let refused = cluster
            .put_order(&cluster::new_order("USD", "1.00"))
            .send()
            .await?;
        assert_eq!(refused.status(), 503, "{shown:?}");
        assert!(refused.headers().contains_key("retry-after"));
        let event = "btc_price_client_failed";
        waits_with(&cluster, CreateBuyOrder, seen, event, shown.refusal()).await?;
    }
    certificates.place("btc_price", Shown::Right)?;
    let order = cluster
        .put_order(&cluster::new_order("USD", "1.00"))
        .send()
        .await?;
    let order: Value = order.error_for_status()?.json().await?;
    let pages = cluster.url(FetchBuyOrders) + "/buy_orders";
    wait_until("it is in the page", LIMIT, async || {
        let page: Value = cluster.http().get(&pages).send().await?.json().await?;
        Ok(page["rows"][0]["id"] == order["buy_order"]["id"])
    })
    .await?;
    assert_no_restart(&cluster);
    Ok(())
}

#[tokio::test]
async fn the_broken_ca_file_of_a_service_is_refused_by_its_name() -> anyhow::Result<()> {
    let certificates = Certificates::new()?;
    let cluster = Cluster::start(Options::only(&[])).await?;
    ask_by_tls(&cluster, &certificates, FetchBuyOrders);
    certificates.replace("ca.pem", "no certificate\n")?;
    cluster.launch(FetchBuyOrders)?;
    cluster.wait_for_end(FetchBuyOrders, LIMIT).await?;
    let event = "service_run_logic_exception_occurred";
    let file = certificates.ca_file().display().to_string();
    waits_with(&cluster, FetchBuyOrders, 0, event, &file).await?;
    waits_with(&cluster, FetchBuyOrders, 0, event, "EXTRA_CA_FILE").await
}
