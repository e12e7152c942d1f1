//! Asks the services. Each address of a service's name is a replica, and is asked by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use common::endpoints;
use common::http::client::{body_up_to, client_at};
use futures_util::future::{join_all, join3};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config::Peer;
use crate::dead_letters::DeadLetter;
use crate::exposition::Exposition;

/// A replica that does not say within this time that it is alive is away.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer, because a service that waits for a database that hangs says so after 1.5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer answer is not read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// More replicas of a service are not asked.
const MAX_REPLICAS: usize = 16;

/// A process of a service.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// Where its clients ask it.
    pub(crate) address: SocketAddr,
    /// `None`: it does not answer.
    pub(crate) answers: Option<Answers>,
}

/// What a replica says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    /// `None`: it shows no metrics.
    pub(crate) metrics: Option<Exposition>,
    pub(crate) readiness: Readiness,
    pub(crate) dead_letters: Vec<DeadLetter>,
}

/// What `/readyz` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// A sentence for each dependency that cannot be used, such as "`write_model` is away".
    NotReady(Vec<String>),
    #[default]
    Unknown,
}

/// A service, with a client for each of its replicas.
#[derive(Debug)]
pub(crate) struct Service {
    peer: Peer,
    has_dead_letters: bool,
    extra_ca: Option<PathBuf>,
    clients: BTreeMap<IpAddr, reqwest::Client>,
}

impl Service {
    pub(crate) fn new(peer: Peer, extra_ca: Option<PathBuf>) -> Self {
        Self {
            peer,
            has_dead_letters: false,
            extra_ca,
            clients: BTreeMap::new(),
        }
    }

    /// Asks for dead letters as well.
    #[must_use]
    pub(crate) fn with_dead_letters(mut self) -> Self {
        self.has_dead_letters = true;
        self
    }

    /// Asks each replica. Ends within 3 s.
    pub(crate) async fn ask(&mut self) -> Vec<Replica> {
        self.resolve().await;
        let asked = self.clients.iter().map(async |(address, client)| Replica {
            address: SocketAddr::new(*address, self.peer.clients.port),
            answers: self.ask_replica(client).await,
        });
        join_all(asked).await
    }

    async fn resolve(&mut self) {
        let endpoints::Peer { host, port, .. } = &self.peer.clients;
        let resolved = timeout(RESOLVE_TIMEOUT, lookup_host((host.as_str(), *port))).await;
        let Some(addresses) = replicas(resolved.ok()) else {
            return;
        };
        self.clients.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if self.clients.contains_key(&address) {
                continue;
            }
            let at = SocketAddr::new(address, *port);
            match client_at(ANSWER_TIMEOUT, self.extra_ca.as_deref(), host, at) {
                Ok(client) => drop(self.clients.insert(address, client)),
                Err(error) => tracing::debug!("{host} cannot be asked: {error:#}"),
            }
        }
    }

    async fn ask_replica(&self, client: &reqwest::Client) -> Option<Answers> {
        let get = |path| get(client, self.peer.operators.url(path));
        let alive = async {
            let alive = timeout(ALIVE_TIMEOUT, get("/livez")).await;
            alive.ok().flatten().ok_or(())
        };
        let letters = async {
            match self.has_dead_letters {
                true => get("/dead_letters").await,
                false => None,
            }
        };
        let answers = join3(get("/metrics"), get("/readyz"), letters);
        let (_, (metrics, readiness, letters)) =
            tokio::try_join!(alive, async { Ok::<_, ()>(answers.await) }).ok()?;
        Some(Answers {
            metrics: metrics
                .filter(|(status, _)| status.is_success())
                .map(|(_, text)| Exposition::read(&text)),
            readiness: readiness.map_or(Readiness::Unknown, |(status, body)| readiness_of(status, &body)),
            dead_letters: letters
                .and_then(|(_, body)| serde_json::from_slice::<Letters>(&body).ok())
                .map(|letters| letters.recent)
                .unwrap_or_default(),
        })
    }
}

#[derive(Deserialize)]
struct Letters {
    recent: Vec<DeadLetter>,
}

/// The addresses to ask; `None`: those that are known, because nobody said which there are.
fn replicas(resolved: Option<io::Result<impl Iterator<Item = SocketAddr>>>) -> Option<BTreeSet<IpAddr>> {
    // A name that is gone has no replicas: an engine removes the name of a container that is stopped.
    let Ok(addresses) = resolved? else {
        return Some(BTreeSet::new());
    };
    let addresses: BTreeSet<IpAddr> = addresses.map(|address| address.ip()).collect();
    // A replica in a network of both versions has an address of each.
    let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
    let of_one_version = addresses
        .into_iter()
        .filter(|address| address.is_ipv4() == has_v4);
    Some(of_one_version.take(MAX_REPLICAS).collect())
}

/// Without a trace context: a request each second is no trace that anybody wants.
async fn get(client: &reqwest::Client, url: String) -> Option<(StatusCode, Vec<u8>)> {
    let response = client.get(url).send().await.ok()?;
    let status = response.status();
    let body = body_up_to(MAX_ANSWER_BYTES, response).await.ok()??;
    Some((status, body))
}

fn readiness_of(status: StatusCode, body: &[u8]) -> Readiness {
    #[derive(Deserialize)]
    struct Detail {
        detail: String,
    }
    match status {
        StatusCode::OK => Readiness::Ready,
        StatusCode::SERVICE_UNAVAILABLE => serde_json::from_slice(body)
            .ok()
            .and_then(|Detail { detail }| {
                let faults = detail.strip_prefix("not ready: ")?;
                Some(Readiness::NotReady(
                    faults.split(", ").map(str::to_owned).collect(),
                ))
            })
            .unwrap_or_default(),
        _ => Readiness::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn resolved(addresses: &[&str]) -> BTreeSet<IpAddr> {
        let addresses: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| SocketAddr::new(address.parse().unwrap(), 8080))
            .collect();
        replicas(Some(Ok(addresses.into_iter()))).unwrap()
    }

    fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_address_of_a_name_is_a_replica_and_in_two_networks_those_of_one() {
        let two = ["172.18.0.5", "172.18.0.6"];
        assert_eq!(resolved(&two), addresses(&two));
        assert_eq!(
            resolved(&["172.18.0.5", "172.18.0.5"]),
            addresses(&["172.18.0.5"])
        );
        assert_eq!(
            resolved(&["fd00::5", "172.18.0.5", "172.18.0.6", "fd00::6"]),
            addresses(&two)
        );
        assert_eq!(
            resolved(&["fd00::5", "fd00::6"]),
            addresses(&["fd00::5", "fd00::6"])
        );
        let many: Vec<String> = (0..40).map(|number| format!("172.18.0.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(resolved(&many).len(), MAX_REPLICAS);
    }

    #[test]
    fn a_name_that_is_gone_has_no_replicas_and_a_resolver_that_is_silent_changes_nothing() {
        type Addresses = std::vec::IntoIter<SocketAddr>;
        let gone: io::Result<Addresses> = Err(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(replicas(Some(gone)), Some(BTreeSet::new()));
        assert_eq!(replicas(None::<io::Result<Addresses>>), None);
    }

    #[test]
    fn what_readyz_names_is_taken_apart_and_everything_else_is_unknown() {
        let read = |status, body: &str| readiness_of(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(read(200, "null"), Readiness::Ready);
        assert_eq!(
            read(
                503,
                r#"{"detail":"not ready: read_model is away, broker is away"}"#
            ),
            Readiness::NotReady(vec!["read_model is away".to_owned(), "broker is away".to_owned()])
        );
        for (status, body) in [
            (503, "{}"),
            (503, "<html>"),
            (503, r#"{"detail":"the service is stopping, try again"}"#),
            (500, r#"{"detail":"not ready: x"}"#),
            (404, ""),
        ] {
            assert_eq!(read(status, body), Readiness::Unknown, "{status} {body}");
        }
    }
}
