//! Helpers of several tests.

use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster::{Cluster, Options, Service};
use serde_json::Value;
use tokio::time::timeout;

/// Generous: several clusters may start at once on a small machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// What is away is shown to be within this time, and what is back as well.
pub(crate) const SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// All services.
pub(crate) fn with_console() -> Options {
    Options {
        services: Service::ALL.to_vec(),
        ..Options::default()
    }
}

/// The console alone: nobody answers it.
pub(crate) fn alone() -> Options {
    Options {
        services: vec![Service::Console],
        ..Options::default()
    }
}

pub(crate) fn url(cluster: &Cluster, path: &str) -> String {
    cluster.url(Service::Console) + path
}

/// The events of a viewer.
pub(crate) struct Events {
    response: reqwest::Response,
    received: String,
}

impl Events {
    pub(crate) async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::from(cluster.http().get(url(cluster, "/events"))).await
    }

    pub(crate) async fn from(request: reqwest::RequestBuilder) -> anyhow::Result<Self> {
        let response = request.send().await?.error_for_status()?;
        Ok(Self {
            response,
            received: String::new(),
        })
    }

    /// The next event, with its data; nothing at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<(String, Value)>> {
        loop {
            if let Some((event, rest)) = self.received.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let name = field("event: ").context("an event without a name")?.to_owned();
                let data = serde_json::from_str(field("data: ").context("an event without data")?)?;
                self.received = rest.to_owned();
                return Ok(Some((name, data)));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.received.push_str(std::str::from_utf8(&chunk)?),
                None => return Ok(None),
            }
        }
    }

    /// The next state.
    pub(crate) async fn next_state(&mut self) -> anyhow::Result<Value> {
        while let Some((name, data)) = self.next().await? {
            if name == "state" {
                return Ok(data);
            }
        }
        bail!("the events ended")
    }
}

/// The state that a new viewer sees.
pub(crate) async fn state(cluster: &Cluster) -> anyhow::Result<Value> {
    Events::of(cluster).await?.next_state().await
}

pub(crate) fn station(state: &Value, name: &str) -> Value {
    let stations = state["stations"].as_array().unwrap();
    let station = stations.iter().find(|station| station["name"] == name);
    station.unwrap().clone()
}

/// Waits until a station has this state, and returns it. One viewer sees it: a place is free again only when a viewer is found gone.
pub(crate) async fn station_is(
    cluster: &Cluster,
    name: &str,
    wanted: &str,
    limit: Duration,
) -> anyhow::Result<Value> {
    let mut found = Value::Null;
    let seen = async {
        let mut events = Events::of(cluster).await?;
        while found["state"] != wanted {
            found = station(&events.next_state().await?, name);
        }
        anyhow::Ok(())
    };
    let seen = timeout(limit, seen).await;
    seen.unwrap_or_else(|_| bail!("not within {limit:?}: {name} is {wanted}"))
        .with_context(|| found.to_string())?;
    Ok(found)
}

/// Waits until every station is well.
pub(crate) async fn all_well(cluster: &Cluster) -> anyhow::Result<Value> {
    let mut last = Value::Null;
    let seen = async {
        let mut events = Events::of(cluster).await?;
        loop {
            last = events.next_state().await?;
            let stations = last["stations"].as_array().unwrap();
            if stations.iter().all(|station| station["state"] == "well") {
                return anyhow::Ok(());
            }
        }
    };
    let seen = timeout(LIMIT, seen).await;
    seen.unwrap_or_else(|_| bail!("not within {LIMIT:?}: every station is well"))
        .with_context(|| last["stations"].to_string())?;
    Ok(last)
}
