//! The exchanges and queues of the broker, which only `migration` declares.

use std::time::Duration;

use cluster::{Cluster, Options, PortLease, Service, wait_until};
use reqwest::Method;
use serde_json::Value;

use crate::support::{databases, healthy, named, once};

const LIMIT: Duration = Duration::from_secs(60);

/// Each with how it is bound, or with its type.
const DECLARED: [&str; 4] = [
    "bindings/{vhost}/e/pydist/q/buy_order",
    "bindings/{vhost}/e/pydist.dead_letter/q/buy_order.dead_letter",
    "queues/{vhost}/buy_order",
    "queues/{vhost}/buy_order.dead_letter",
];

/// A request to the management API, by the administrator. Returns the answer.
async fn manage(cluster: &Cluster, method: Method, resource: &str) -> anyhow::Result<Value> {
    let broker = cluster.queue();
    let request = cluster.http().request(method, broker.api(resource));
    let request = request.basic_auth(&broker.user, Some(&broker.password));
    let text = request.send().await?.error_for_status()?.text().await?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

async fn everything_is_declared(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("everything is declared", LIMIT, async || {
        for resource in DECLARED {
            let found = manage(cluster, Method::GET, resource).await?;
            anyhow::ensure!(found != Value::Array(Vec::new()), "{resource} is empty");
        }
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn once_declares_everything_and_may_be_run_again() -> anyhow::Result<()> {
    let cluster = databases().await?;
    for _ in 0..2 {
        let (exit_code, events) = once(&cluster).await?;
        assert_eq!(exit_code, Some(0), "{events:?}");
        assert_eq!(named(&events, "queue_declared").len(), 1, "{events:?}");
        everything_is_declared(&cluster).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_somebody_deletes_comes_back() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    everything_is_declared(&cluster).await?;
    for deleted in [
        "exchanges/{vhost}/pydist",
        "exchanges/{vhost}/pydist.dead_letter",
        "queues/{vhost}/buy_order",
        "queues/{vhost}/buy_order.dead_letter",
        "bindings/{vhost}/e/pydist/q/buy_order/buy_order",
    ] {
        manage(&cluster, Method::DELETE, deleted).await?;
        everything_is_declared(&cluster).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_holds_up_no_start_and_is_told() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let nobody = PortLease::take()?.port();
    cluster.set_env(Service::Migration, "Q_PORT", &nobody.to_string());
    cluster.launch(Service::Migration)?;
    healthy(&cluster).await?;
    let readyz = cluster.url(Service::Migration) + "/readyz";
    let said: Value = cluster.http().get(readyz).send().await?.json().await?;
    assert_eq!(said["detail"], "not ready: broker is away");
    wait_until("an event names its address", LIMIT, async || {
        let events = cluster.logs(Service::Migration);
        let failed = named(&events, "queue_not_declared");
        Ok(failed.iter().any(|event| event["queue_port"] == nobody))
    })
    .await
}

#[tokio::test]
async fn without_a_broker_in_the_environment_it_only_migrates() -> anyhow::Result<()> {
    let cluster = databases().await?;
    cluster.set_env(Service::Migration, "Q_HOST", "");
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    cluster.start_service(Service::Migration).await?;
    let readyz = cluster.url(Service::Migration) + "/readyz";
    assert_eq!(cluster.http().get(readyz).send().await?.status(), 200);
    assert!(manage(&cluster, Method::GET, DECLARED[2]).await.is_err());
    Ok(())
}
