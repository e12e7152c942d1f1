//! Keeps the issuer's keys up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::StatusCode;
use reqwest::header::ACCEPT;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::config::{Jwt, Source};
use super::keys::KeySet;
use super::refusal::Refusal;
use super::token::{Bearer, Expected};
use crate::http::client::{self, Recipient};
use crate::retry::Backoff;

/// How often keys are read, so that one that the issuer has withdrawn is not used for long.
const REFRESH: Duration = Duration::from_secs(300);

const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longer answers are refused without being read to the end. A key takes up to 2 kB.
const MAX_JWKS_BYTES: usize = 256 * 1024;

/// Verifies tokens with the keys that the issuer has now. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Issuer {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    refetch: Duration,
}

#[derive(Debug)]
struct State {
    /// The keys that were read last. They stay while the issuer is away.
    keys: Option<Arc<KeySet>>,
    attempts: u64,
    last_attempt: Instant,
}

impl Issuer {
    /// The issuer, and the task that reads its keys.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub(super) fn new(jwt: Jwt) -> anyhow::Result<(Self, Refresher)> {
        let source = match jwt.source {
            Source::Url(url) => Reader::Url(client::client(FETCH_TIMEOUT, jwt.extra_ca.as_deref())?, url),
            Source::File(path) => Reader::File(path),
        };
        let wanted = Arc::new(Notify::new());
        let (publish, state) = watch::channel(State {
            keys: None,
            attempts: 0,
            last_attempt: Instant::now(),
        });
        let refresher = Refresher {
            source,
            expected: jwt.expected,
            refetch: jwt.refetch,
            publish,
            wanted: Arc::clone(&wanted),
        };
        let issuer = Self {
            state,
            wanted,
            refetch: jwt.refetch,
        };
        Ok((issuer, refresher))
    }

    /// The bearer of a token. If its key is not known, the keys are read again, but not too often.
    pub(super) async fn verify(&self, token: &str) -> Result<Arc<Bearer>, Refusal> {
        let verified = self.keys()?.verify(token);
        if verified == Err(Refusal::UnknownKey) && self.read_again().await {
            return self.keys()?.verify(token);
        }
        verified
    }

    /// Why no token can be verified, for the readiness of the service.
    pub(super) fn has_keys(&self) -> Result<(), String> {
        self.keys().map(drop).map_err(|refusal| refusal.to_string())
    }

    fn keys(&self) -> Result<Arc<KeySet>, Refusal> {
        self.state.borrow().keys.clone().ok_or(Refusal::NoKeys)
    }

    /// Has the keys read, unless that was tried a moment ago. All requests that wait here share one try.
    async fn read_again(&self) -> bool {
        let mut state = self.state.clone();
        let (attempts, last_attempt) = {
            let state = state.borrow();
            (state.attempts, state.last_attempt)
        };
        if last_attempt.elapsed() < self.refetch {
            return false;
        }
        self.wanted.notify_one();
        let read = state.wait_for(|state| state.attempts > attempts);
        timeout(FETCH_TIMEOUT, read).await.is_ok_and(|read| read.is_ok())
    }
}

/// Reads the keys: at the start, every five minutes, and when a token needs one that is not known.
#[derive(Debug)]
pub(super) struct Refresher {
    source: Reader,
    expected: Expected,
    refetch: Duration,
    publish: watch::Sender<State>,
    wanted: Arc<Notify>,
}

impl Refresher {
    pub(super) async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::starting_at(FIRST_PAUSE);
        loop {
            let read = self.source.read().await;
            let succeeded = self.publish(read.and_then(|json| KeySet::parse(&json, &self.expected)));
            if self.publish.borrow().keys.is_none() {
                if !backoff.pause(&stopping).await {
                    return Ok(());
                }
                continue;
            }
            let next = if succeeded { REFRESH } else { self.refetch };
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.wanted_again() => {}
                () = stopping.cancelled() => return Ok(()),
            }
        }
    }

    /// Returns when a request needs a key that is not known. A second wish of the same moment was fulfilled with the first.
    async fn wanted_again(&self) {
        loop {
            self.wanted.notified().await;
            if self.publish.borrow().last_attempt.elapsed() >= self.refetch {
                return;
            }
        }
    }

    fn publish(&self, read: anyhow::Result<KeySet>) -> bool {
        let succeeded = read.is_ok();
        self.publish.send_modify(|state| {
            state.attempts = state.attempts.wrapping_add(1);
            state.last_attempt = Instant::now();
            match read {
                Ok(keys) if state.keys.as_ref().is_some_and(|known| known.is_same(&keys)) => {}
                Ok(keys) => {
                    tracing::info!(event = "issuer_keys_read", keys = keys.ids().join(" "));
                    state.keys = Some(Arc::new(keys));
                }
                Err(error) => {
                    let info = format!("{error:#}");
                    let known = state.keys.is_some();
                    tracing::warn!(event = "issuer_keys_not_read", info, known);
                }
            }
        });
        succeeded
    }
}

#[derive(Debug)]
enum Reader {
    Url(reqwest::Client, url::Url),
    File(std::path::PathBuf),
}

impl Reader {
    async fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Url(client, url) => fetch(client, url.clone()).await,
            Self::File(path) => {
                std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
            }
        }
    }
}

async fn fetch(client: &reqwest::Client, url: url::Url) -> anyhow::Result<Vec<u8>> {
    let request = client.get(url).header(ACCEPT, "application/json");
    let response = client::send(request, Recipient::External)
        .await
        .context("the issuer cannot be reached")?;
    let status = response.status();
    ensure!(
        status == StatusCode::OK,
        "the issuer answered with status {status}"
    );
    let body = client::body_up_to(MAX_JWKS_BYTES, response)
        .await
        .context("the issuer's answer broke off")?;
    body.with_context(|| format!("the issuer's answer is longer than {MAX_JWKS_BYTES} bytes"))
}
