//! Services that speak TLS.

use std::fs;

use cluster::{Cluster, Options, Service, new_order, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::support::{Events, LIMIT};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The certificate is of a name, and each replica is asked by its address.
#[tokio::test]
async fn replicas_show_a_certificate_of_their_name_and_spans_travel_by_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &authority)?;
    fs::write(path("ca.pem"), authority.pem())?;
    fs::write(path("certificate.pem"), certificate.pem())?;
    fs::write(path("key.pem"), key.serialize_pem())?;

    let mut options = Options {
        services: Service::ALL.to_vec(),
        ..Options::default()
    };
    for service in Service::ALL {
        options = options
            .with_env(service, "SERVICE_TLS_CERT_FILE", path("certificate.pem"))
            .with_env(service, "SERVICE_TLS_KEY_FILE", path("key.pem"))
            .with_env(service, "EXTRA_CA_FILE", path("ca.pem"))
            .with_env(service, "MIGRATION_PROTOCOL", "https")
            .with_env(service, "BTC_PRICE_PROTOCOL", "https");
        for peer in Service::ALL {
            let host = format!("{}_HOST", peer.name().to_uppercase());
            options = options.with_env(service, &host, "localhost");
        }
    }
    let cluster = Cluster::start(options).await?;
    let http = cluster::https_client_with(Default::default(), &folder.path().join("ca.pem"))?;
    let console = cluster.url(Service::Console).replace("127.0.0.1", "localhost");
    wait_until("every station is well", LIMIT, async || {
        let mut events = Events::from(http.get(format!("{console}/events"))).await?;
        let state = events.next_state().await?;
        let stations = state["stations"].as_array().unwrap();
        let ill = stations.iter().find(|station| station["state"] != "well");
        anyhow::ensure!(ill.is_none(), "{ill:?}");
        Ok(true)
    })
    .await?;
    let put = http
        .put(format!("{console}/buy_order"))
        .json(&new_order("USD", "1"));
    let put = put.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    assert_eq!(put.send().await?.status(), 200);
    wait_until("the order's way is known", LIMIT, async || {
        let journey = http.get(format!("{console}/journeys/{TRACE}"));
        let journey: Value = journey.send().await?.json().await?;
        Ok(journey["is_projected"] == true)
    })
    .await
}
