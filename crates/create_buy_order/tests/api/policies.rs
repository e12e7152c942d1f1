//! What an operator of the broker can break, and the repair steps of docs/operations.md.

use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use reqwest::Method;
use serde_json::{Value, json};

use super::broker::{channel, close_connections, ready};
use super::outbox::{everything_is_projected, place};

const LIMIT: Duration = Duration::from_secs(60);

/// The services that use the broker, with the event of a refusal and what is refused first.
const REFUSED: [(Service, &str, &str); 3] = [
    (
        Service::Migration,
        "queue_not_declared",
        "access to exchange 'pydist'",
    ),
    (
        Service::CreateBuyOrder,
        "queue_publisher_failed_to_connect",
        "access to exchange 'pydist'",
    ),
    (
        Service::ReadModelSync,
        "queue_listener_failed_to_connect",
        "access to queue 'buy_order'",
    ),
];

/// Does the same as `scripts/queue.sh RESOURCE METHOD JSON`.
async fn manage(
    cluster: &Cluster,
    method: Method,
    resource: &str,
    body: Option<Value>,
) -> anyhow::Result<String> {
    let broker = cluster.queue();
    let mut request = cluster.http().request(method, broker.api(resource));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let request = request.basic_auth(&broker.user, Some(&broker.password));
    Ok(request.send().await?.error_for_status()?.text().await?)
}

#[tokio::test]
async fn orders_that_a_ttl_policy_took_from_the_queue_come_back_by_republish() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    cluster.stop(Service::ReadModelSync).await?;
    let policy = json!({"pattern": ".*", "definition": {"message-ttl": 1}, "apply-to": "queues"});
    manage(&cluster, Method::PUT, "policies/{vhost}/expire", Some(policy)).await?;
    // The policy also expires messages that are already in the queue.
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 5).await?;
    let channel = channel(&cluster).await?;
    wait_until("the policy has emptied both queues", LIMIT, async || {
        let outbox: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(cluster.write_model())
            .await?;
        Ok(outbox == 0
            && ready(&channel, "buy_order").await? + ready(&channel, "buy_order.dead_letter").await? == 0)
    })
    .await?;

    // The manual says where to find it.
    wait_until("the queue names its policy", LIMIT, async || {
        let queues = manage(
            &cluster,
            Method::GET,
            "queues/{vhost}?columns=name,policy,effective_policy_definition",
            None,
        );
        let queues = queues.await?;
        Ok(queues.contains("\"policy\":\"expire\"") && queues.contains("message-ttl"))
    })
    .await?;
    assert!(
        manage(&cluster, Method::GET, "policies", None)
            .await?
            .contains("expire")
    );
    manage(&cluster, Method::DELETE, "policies/{vhost}/expire", None).await?;
    cluster.start_service(Service::ReadModelSync).await?;
    let republished = cluster.admin(Service::CreateBuyOrder, &["republish"], "").await?;
    assert_eq!(republished.code, Some(0), "{republished:?}");
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn a_broker_that_refuses_a_permission_is_told_by_an_event_and_used_again_once_it_permits()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    // A separate user: that of the tests is an administrator, shared by all tests.
    let user = cluster::BrokerAddress {
        user: format!("limited_{}", uuid::Uuid::new_v4().simple()),
        ..cluster.queue().clone()
    };
    let (account, permissions) = (
        format!("users/{}", user.user),
        format!("permissions/{{vhost}}/{}", user.user),
    );
    let permit = |what: &str| json!({"configure": what, "write": what, "read": what});
    manage(
        &cluster,
        Method::PUT,
        &account,
        Some(json!({"password": "limited", "tags": ""})),
    )
    .await?;
    manage(&cluster, Method::PUT, &permissions, Some(permit(""))).await?;
    for (service, ..) in REFUSED {
        cluster.stop(service).await?;
        cluster.set_env(service, "Q_USER", &user.user);
        cluster.set_env(service, "Q_PWD", "limited");
        cluster.start_service(service).await?;
    }
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 2).await?;
    for (service, name, refused) in REFUSED {
        wait_until("the event says who refuses what", LIMIT, async || {
            let told: Vec<Value> = cluster.logs(service);
            let told: Vec<String> = told
                .iter()
                .filter(|event| event["event"] == name)
                .map(Value::to_string)
                .collect();
            anyhow::ensure!(
                told.iter()
                    .any(|text| text.contains("ACCESS_REFUSED") && text.contains(refused)),
                "{told:?}"
            );
            Ok(true)
        })
        .await?;
    }

    let shown = manage(&cluster, Method::GET, &permissions, None).await?;
    assert!(shown.contains("\"configure\":\"\""), "{shown}");
    manage(
        &cluster,
        Method::PUT,
        &permissions,
        Some(permit("^(pydist|buy_order)(\\..*)?$")),
    )
    .await?;
    everything_is_projected(&cluster).await?;
    close_connections(&cluster).await?;
    manage(&cluster, Method::DELETE, &account, None).await?;
    Ok(())
}
