//! A service that serves TLS itself: which clients it serves, and what happens to its files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, wait_until};
use common::http::client::client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::LIMIT;
use super::certificates::{Certificates, Shown};
use super::peers::serve_tls;

use Service::BtcPrice;

const TIMEOUT: Duration = Duration::from_secs(30);

struct Serving {
    cluster: Cluster,
    certificates: Certificates,
}

impl Serving {
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start(Options {
            services: Vec::new(),
            ..Options::default()
        })
        .await?;
        let certificates = Certificates::new()?;
        certificates.place("btc_price", Shown::Right)?;
        serve_tls(&cluster, &certificates, BtcPrice);
        cluster.start_service(BtcPrice).await?;
        Ok(Self {
            cluster,
            certificates,
        })
    }

    fn url(&self) -> String {
        self.cluster.url(BtcPrice)
    }

    async fn connect_plain(&self) -> anyhow::Result<TcpStream> {
        let url = self.url();
        let address = url.strip_prefix("https://").context("no TLS")?;
        Ok(TcpStream::connect(address).await?)
    }

    async fn connect_with(&self, protocols: &[&[u8]]) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificates.ca_file())?)?;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector.connect(name, self.connect_plain().await?).await?)
    }

    /// The certificate that a new connection sees.
    async fn shown(&self) -> anyhow::Result<Vec<u8>> {
        let stream = self.connect_with(&[b"http/1.1"]).await?;
        let session = stream.get_ref().1;
        ensure!(session.alpn_protocol() == Some(b"http/1.1"), "another protocol");
        let chain = session.peer_certificates().context("no certificate")?;
        Ok(chain.first().context("no certificate")?.to_vec())
    }

    fn in_file(&self) -> anyhow::Result<Vec<u8>> {
        let file = self.certificates.path("btc_price.crt");
        Ok(CertificateDer::from_pem_file(file)?.to_vec())
    }

    fn logged(&self, event: &str) -> usize {
        let logs = self.cluster.logs(BtcPrice);
        logs.iter().filter(|line| line["event"] == event).count()
    }
}

#[tokio::test]
async fn new_connections_see_the_certificate_in_the_files_and_broken_files_leave_the_last_good_one()
-> anyhow::Result<()> {
    let service = Serving::start().await?;
    let first = service.in_file()?;
    assert_eq!(service.shown().await?, first);
    let http = client(TIMEOUT, Some(&service.certificates.ca_file()))?;
    let quote = service.url() + "/buy?currency=USD";
    http.get(&quote).send().await?.error_for_status()?;

    service.certificates.place("btc_price", Shown::Right)?;
    let second = service.in_file()?;
    assert_ne!(second, first);
    assert_eq!(service.shown().await?, second);
    // The connection from before goes on.
    http.get(&quote).send().await?.error_for_status()?;

    // A new certificate with the old key, and then what is no certificate.
    let half = service.certificates.issue(Shown::Right)?;
    service.certificates.replace("btc_price.crt", &half.chain)?;
    for _ in 0..3 {
        assert_eq!(service.shown().await?, second);
    }
    service.certificates.replace("btc_price.crt", "broken\n")?;
    for _ in 0..3 {
        assert_eq!(service.shown().await?, second);
    }

    service.certificates.place("btc_price", Shown::Right)?;
    assert_eq!(service.shown().await?, service.in_file()?);
    wait_until("it has logged the second change", LIMIT, async || {
        Ok(service.logged("tls_files_changed") == 2)
    })
    .await?;
    // Once for each reason, and not at each connection.
    assert_eq!(service.logged("tls_files_not_used"), 2);
    Ok(())
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_or_another_protocol_is_closed_and_others_are_served()
-> anyhow::Result<()> {
    let service = Serving::start().await?;
    for request in [
        &b"GET /healthcheck HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\xff\xff",
    ] {
        let mut stream = service.connect_plain().await?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await?;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert!(service.connect_with(&[b"h2"]).await.is_err());
    let http = client(TIMEOUT, Some(&service.certificates.ca_file()))?;
    let answer = http.get(service.url() + "/healthcheck").send().await?;
    assert_eq!(answer.text().await?, "null");
    wait_until("their connections are gone", LIMIT, async || {
        let shown = http.get(service.url() + "/metrics").send().await?.text().await?;
        Ok(shown.lines().any(|line| line == "http_connections_open 1"))
    })
    .await
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() -> anyhow::Result<()> {
    let service = Serving::start().await?;
    let mut stream = service.connect_plain().await?;
    // The beginning of a record that never comes.
    stream.write_all(b"\x16\x03\x01\x00\x80").await?;
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await?;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(8) && took < Duration::from_secs(20),
        "{took:?}"
    );
    Ok(())
}

#[tokio::test]
async fn answers_to_what_hyper_refuses_and_large_answers_come_whole_by_tls() -> anyhow::Result<()> {
    let service = Serving::start().await?;
    for (request, status) in [
        (
            "GET /healthcheck HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "200",
        ),
        ("nonsense\r\n\r\n", "400"),
        ("GET /openapi.json HTTP/1.0\r\nhost: a\r\n\r\n", "200"),
    ] {
        let mut stream = service.connect_with(&[]).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        // Fails if TLS is not closed in its own way, which tells a complete answer from one that was cut.
        timeout(LIMIT, stream.read_to_string(&mut answer)).await??;
        assert!(
            answer.starts_with("HTTP/1.") && answer.contains(status),
            "{answer}"
        );
        assert!(answer.contains("x-request-id: "), "{answer}");
    }
    let http = client(TIMEOUT, Some(&service.certificates.ca_file()))?;
    let script = http
        .get(service.url() + "/docs/swagger-ui-bundle.js")
        .send()
        .await?;
    let length: usize = script.headers()["content-length"].to_str()?.parse()?;
    let body = script.error_for_status()?.bytes().await?;
    assert!(body.len() == length && length > 100_000, "{length}");
    Ok(())
}

#[tokio::test]
async fn the_probes_of_a_service_work_with_an_expired_certificate_and_with_broken_files() -> anyhow::Result<()>
{
    let service = Serving::start().await?;
    service.certificates.place("btc_price", Shown::Expired)?;
    for break_files in [false, true] {
        if break_files {
            service.certificates.replace("btc_price.crt", "broken\n")?;
        }
        for (probe, printed) in [("healthcheck", ""), ("metrics", "pydist_build_info")] {
            let ended = service.cluster.admin(BtcPrice, &[probe], "").await?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stdout.contains(printed), "{ended:?}");
        }
    }
    service.cluster.stop(BtcPrice).await?;
    let ended = service.cluster.admin(BtcPrice, &["healthcheck"], "").await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    // The files are still broken: the service does not start, and says which.
    service.cluster.launch(BtcPrice)?;
    service.cluster.wait_for_end(BtcPrice, LIMIT).await?;
    wait_until("it says why", LIMIT, async || {
        let output = service.cluster.output(BtcPrice).join("\n");
        Ok(output.contains("SERVICE_TLS_CERT_FILE and SERVICE_TLS_KEY_FILE name files that cannot be used"))
    })
    .await
}
