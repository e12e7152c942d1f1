//! `Q_PROTOCOL=amqps`, of all services that use the broker.

use std::sync::{Arc, Mutex};

use anyhow::ensure;
use cluster::{Cluster, Options, PortLease, Service, wait_until};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::certificates::{Certificates, Shown};
use super::{LIMIT, assert_no_restart, seen, waits_with};

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

/// Each service with the event that says that it has no broker.
const CLIENTS: [(Service, &str); 3] = [
    (Migration, "queue_not_declared"),
    (CreateBuyOrder, "queue_publisher_failed_to_connect"),
    (ReadModelSync, "queue_listener_failed_to_connect"),
];

/// Servers of its own, whose broker shows the certificate `queue` at this port, too.
pub(super) fn with_encrypted_broker(options: Options, certificates: &Certificates, port: u16) -> Options {
    let path = |name: &str| certificates.path(name).display().to_string();
    options
        .with_broker_setting("listeners.ssl.1", format!("127.0.0.1:{port}"))
        .with_broker_setting("ssl_options.cacertfile", path("ca.pem"))
        .with_broker_setting("ssl_options.certfile", path("queue.crt"))
        .with_broker_setting("ssl_options.keyfile", path("queue.key"))
        .with_broker_setting("ssl_options.verify", "verify_none")
}

pub(super) fn use_encrypted_broker(cluster: &Cluster, certificates: &Certificates, port: u16) {
    let ca_file = certificates.ca_file().display().to_string();
    for (service, _) in CLIENTS {
        for (name, value) in [
            ("Q_PROTOCOL", "amqps"),
            ("Q_HOST", "localhost"),
            ("Q_PORT", &port.to_string()),
            ("Q_CA_FILE", &ca_file),
        ] {
            cluster.set_env(service, name, value);
        }
    }
}

struct Encrypting {
    cluster: Cluster,
    certificates: Certificates,
    _port: PortLease,
}

impl Encrypting {
    async fn start() -> anyhow::Result<Self> {
        let certificates = Certificates::new()?;
        certificates.place("queue", Shown::Right)?;
        let port = PortLease::take()?;
        let options = Options {
            services: Vec::new(),
            ..Options::default()
        };
        let options = with_encrypted_broker(options, &certificates, port.port());
        let cluster = Cluster::start(options).await?;
        use_encrypted_broker(&cluster, &certificates, port.port());
        Ok(Self {
            cluster,
            certificates,
            _port: port,
        })
    }

    /// The broker shows another certificate from its next connection on.
    async fn show(&self, shown: Shown) -> anyhow::Result<()> {
        self.certificates.place("queue", shown)?;
        // Erlang reads the files again after two minutes, or now.
        self.cluster
            .rabbitmqctl(&["eval", "ssl:clear_pem_cache()."])
            .await
    }

    async fn all_have_a_broker(&self) -> anyhow::Result<()> {
        for service in [Migration, ReadModelSync] {
            let url = self.cluster.url(service) + "/readyz";
            wait_until("the broker is there", LIMIT, async || {
                let answer = self.cluster.http().get(&url).send().await?;
                ensure!(answer.status() == 200, "{}", answer.text().await?);
                Ok(true)
            })
            .await?;
        }
        let put = self.cluster.put_order(&cluster::new_order("USD", "1.00"));
        let order: serde_json::Value = put.send().await?.error_for_status()?.json().await?;
        let page = format!(
            "{}/buy_orders?last_reference={}",
            self.cluster.url(FetchBuyOrders),
            order["buy_order"]["id"].as_str().unwrap_or_default()
        );
        wait_until("the order has come through the broker", LIMIT, async || {
            Ok(self.cluster.http().get(&page).send().await?.status() == 200)
        })
        .await
    }
}

#[tokio::test]
async fn a_broker_that_cannot_prove_who_it_is_is_refused_and_trusted_again_without_a_restart()
-> anyhow::Result<()> {
    let mut broker = Encrypting::start().await?;
    broker.show(Shown::OfAnotherAuthority).await?;
    broker.cluster.start_service(Migration).await?;
    broker.cluster.start_service(BtcPrice).await?;
    broker.cluster.start_service(CreateBuyOrder).await?;
    broker.cluster.start_service(FetchBuyOrders).await?;
    broker.cluster.launch(ReadModelSync)?;
    for shown in Shown::WRONG {
        let seen = CLIENTS.map(|(service, _)| seen(&broker.cluster, service));
        broker.show(shown).await?;
        for ((service, event), seen) in CLIENTS.into_iter().zip(seen) {
            waits_with(&broker.cluster, service, seen, event, shown.refusal()).await?;
        }
    }
    broker.show(Shown::Right).await?;
    broker.cluster.wait_until_healthy(ReadModelSync).await?;
    broker.all_have_a_broker().await?;

    // Connections that are open stay; the next ones see the certificate.
    let seen = CLIENTS.map(|(service, _)| seen(&broker.cluster, service));
    broker.show(Shown::Expired).await?;
    broker.cluster.close_broker_connections().await?;
    for ((service, event), seen) in CLIENTS.into_iter().zip(seen) {
        waits_with(&broker.cluster, service, seen, event, Shown::Expired.refusal()).await?;
    }
    // Q_CA_FILE is read again, too.
    broker.certificates.change_authority()?;
    broker.show(Shown::Right).await?;
    broker.all_have_a_broker().await?;
    assert_no_restart(&broker.cluster);
    Ok(())
}

#[tokio::test]
async fn amqps_to_a_broker_that_speaks_plain_text_sends_no_password_and_says_why() -> anyhow::Result<()> {
    // What a service sends to a server that takes anything.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port().to_string();
    let received = Arc::new(Mutex::new(Vec::new()));
    let records = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let records = Arc::clone(&records);
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                let read = stream.read(&mut bytes).await.unwrap_or_default();
                bytes.truncate(read);
                records.lock().unwrap().push(bytes);
                // As RabbitMQ's plain listener answers, and then closes.
                let _ = stream.try_write(b"AMQP\0\0\x09\x01");
            });
        }
    });
    let cluster = Cluster::start(Options::only(&[])).await?;
    let certificates = Certificates::new()?;
    use_encrypted_broker(&cluster, &certificates, 1);
    cluster.set_env(CreateBuyOrder, "Q_PORT", &port);
    cluster.start_service(CreateBuyOrder).await?;
    waits_with(
        &cluster,
        CreateBuyOrder,
        0,
        "queue_publisher_failed_to_connect",
        "no encrypted connection to the broker",
    )
    .await?;
    wait_until("it tries again", LIMIT, async || {
        Ok(received.lock().unwrap().len() >= 3)
    })
    .await?;
    for bytes in received.lock().unwrap().iter() {
        // A TLS record of a handshake (RFC 8446, 5.1).
        assert_eq!(bytes.get(..2), Some(&[22, 3][..]), "{bytes:?}");
        assert!(!bytes.windows(4).any(|window| window == b"AMQP"));
    }
    // The real listener without TLS.
    let seen = seen(&cluster, CreateBuyOrder);
    cluster.stop(CreateBuyOrder).await?;
    cluster.set_env(CreateBuyOrder, "Q_PORT", &cluster.queue().port.to_string());
    cluster.start_service(CreateBuyOrder).await?;
    waits_with(
        &cluster,
        CreateBuyOrder,
        seen,
        "queue_publisher_failed_to_connect",
        "no encrypted connection to the broker",
    )
    .await
}
