//! The faults of the broker and its messages that the harness can make.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Raw, Service, wait_until};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);
const QUEUE: &str = "buy_order";

fn raw(id: &str) -> Raw {
    Raw {
        body: vec![0, 159, 146, 150],
        message_id: Some(id.to_owned()),
        message_type: Some("nonsense".to_owned()),
    }
}

/// `migration` declares the queues, and there is no consumer.
async fn with_queues(options: Options) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(options).await?;
    wait_until("the publisher has found the queues", LIMIT, async || {
        Ok(connections(&cluster) > 0)
    })
    .await?;
    Ok(cluster)
}

/// How often the publisher has connected.
fn connections(cluster: &Cluster) -> usize {
    let events = cluster.logs(Service::CreateBuyOrder);
    events
        .iter()
        .filter(|event| event["event"] == "queue_publisher_connected")
        .count()
}

#[tokio::test]
async fn raw_messages_are_published_counted_peeked_at_and_purged() -> anyhow::Result<()> {
    let cluster = with_queues(Options::only(&[Service::CreateBuyOrder])).await?;
    // It would repair what is broken here.
    cluster.stop(Service::Migration).await?;
    cluster.publish(&[raw("1"), raw("2"), raw("3")]).await?;
    assert_eq!(cluster.queue_messages(QUEUE).await?, 3);
    let peeked = cluster.peek_messages(QUEUE, 2).await?;
    let ids: Vec<_> = peeked
        .iter()
        .map(|message| message.message_id.as_deref())
        .collect();
    assert_eq!(ids, [Some("1"), Some("2")]);
    assert_eq!(peeked[0].payload, raw("1").body);
    assert_eq!(peeked[0].message_type.as_deref(), Some("nonsense"));
    wait_until("the messages are back", LIMIT, async || {
        Ok(cluster.queue_messages(QUEUE).await? == 3)
    })
    .await?;
    cluster.purge_queue(QUEUE).await?;
    assert_eq!(cluster.queue_messages(QUEUE).await?, 0);

    cluster.unbind_queue(QUEUE).await?;
    let error = cluster
        .publish(&[raw("4")])
        .await
        .err()
        .context("a queue took it")?;
    assert!(error.to_string().contains("refused a message"), "{error}");
    cluster.delete_queue(QUEUE).await?;
    assert!(cluster.queue_messages(QUEUE).await.is_err());
    assert!(cluster.delete_queue(QUEUE).await.is_err());
    Ok(())
}

#[tokio::test]
async fn alarms_block_publishers_and_the_broker_stops_within_its_node() -> anyhow::Result<()> {
    let cluster = with_queues(Options::only(&[Service::CreateBuyOrder]).with_own_servers()).await?;
    cluster.broker_memory_alarm(true).await?;
    assert!(
        timeout(Duration::from_secs(2), cluster.publish(&[raw("memory")]))
            .await
            .is_err()
    );
    cluster.broker_memory_alarm(false).await?;
    timeout(LIMIT, cluster.publish(&[raw("memory")])).await??;
    cluster.broker_disk_alarm(true).await?;
    assert!(
        timeout(Duration::from_secs(2), cluster.publish(&[raw("disk")]))
            .await
            .is_err()
    );
    cluster.broker_disk_alarm(false).await?;
    timeout(LIMIT, cluster.publish(&[raw("disk")])).await??;

    let before = connections(&cluster);
    cluster.close_broker_connections().await?;
    wait_until("the service connects again", LIMIT, async || {
        Ok(connections(&cluster) > before)
    })
    .await?;

    cluster.broker_stop_app().await?;
    assert!(cluster.queue_messages(QUEUE).await.is_err());
    cluster.broker_start_app().await?;
    wait_until("the messages are still there", LIMIT, async || {
        Ok(cluster.queue_messages(QUEUE).await? >= 2)
    })
    .await
}

#[tokio::test]
async fn a_policy_fills_a_queue_until_it_is_taken_away() -> anyhow::Result<()> {
    let cluster = with_queues(Options::only(&[Service::CreateBuyOrder])).await?;
    cluster
        .set_policy(QUEUE, serde_json::json!({"max-length": 0}))
        .await?;
    // A quorum queue may take one more message than its policy allows.
    cluster.publish(&[raw("1")]).await.ok();
    assert!(cluster.publish(&[raw("2")]).await.is_err(), "it was taken");
    cluster.delete_policy(QUEUE).await?;
    cluster.publish(&[raw("3")]).await?;
    Ok(())
}
