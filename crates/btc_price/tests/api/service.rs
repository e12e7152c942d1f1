//! The service under test.

use std::time::Duration;

use anyhow::Context;
use cluster::{Cluster, Options, PriceSimulator, Service, wait_until};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// Much longer than any condition takes; only a failing test waits that long.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A running `btc_price` and its simulator.
pub(crate) struct BtcPrice {
    cluster: Cluster,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<u64>,
    pub(crate) allow: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Value,
}

impl BtcPrice {
    /// Starts it; `variables` are added to those of the contract, or replace them.
    pub(crate) async fn start(variables: &[(&'static str, &str)]) -> anyhow::Result<Self> {
        // This service needs no databases.
        let options = Options {
            services: vec![Service::BtcPrice],
            migrated: false,
            ..Options::default()
        };
        let options = variables.iter().fold(options, |options, (name, value)| {
            options.with_env(Service::BtcPrice, name, *value)
        });
        Ok(Self {
            cluster: Cluster::start(options).await?,
        })
    }

    pub(crate) fn prices(&self) -> &PriceSimulator {
        self.cluster.prices()
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.cluster.url(Service::BtcPrice) + path;
        self.cluster.http().request(method, url)
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn buy(&self, currency: &str) -> anyhow::Result<Answer> {
        self.get(&format!("/buy?currency={currency}")).await
    }

    /// Repeats the request until the answer has this status.
    pub(crate) async fn buy_until(&self, currency: &str, status: StatusCode) -> anyhow::Result<Answer> {
        let mut last = None;
        wait_until(&format!("{status} for {currency}"), LIMIT, async || {
            let answer = self.buy(currency).await?;
            let done = answer.status == status;
            last = Some(answer);
            Ok(done)
        })
        .await?;
        last.context("no answer")
    }

    /// The events with this name so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let events = self.cluster.logs(Service::BtcPrice);
        events
            .into_iter()
            .filter(|event| event["event"] == name)
            .collect()
    }
}

/// Sends the request and reads the answer, whose body must be JSON.
pub(crate) async fn answer(request: RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (retry_after, allow, content_type) = (header("retry-after"), header("allow"), header("content-type"));
    Ok(Answer {
        status: response.status(),
        retry_after: retry_after.map(|seconds| seconds.parse()).transpose()?,
        allow,
        content_type,
        body: response.json().await?,
    })
}
