//! Dead letters that the broker does not take: they are held and retried, and everything else is projected meanwhile.

use cluster::{Cluster, Service, wait_until};
use serde_json::json;

use super::broker::Broker;
use super::{LIMIT, event, last_lines, logged, projection, projection_with_own_servers, rows_appear};

/// Limits the dead-letter queue to this many letters by a policy; `None` removes the limit.
async fn limit_dead_letters(cluster: &Cluster, letters: Option<u32>) -> anyhow::Result<()> {
    let queue = cluster.queue();
    let policy = queue.api("policies/{vhost}/full");
    let request = match letters {
        Some(letters) => cluster.http().put(policy).json(&json!({
            "pattern": r"^buy_order\.dead_letter$",
            "definition": { "max-length": letters },
            "apply-to": "queues",
        })),
        None => cluster.http().delete(policy),
    };
    let answer = request
        .basic_auth(&queue.user, Some(&queue.password))
        .send()
        .await?;
    answer.error_for_status()?;
    Ok(())
}

async fn held(cluster: &Cluster) -> anyhow::Result<u32> {
    let url = cluster.url(Service::ReadModelSync) + "/metrics";
    let shown = cluster.http().get(&url).send().await?.text().await?;
    let held = shown
        .lines()
        .find_map(|line| line.strip_prefix("dead_letters_held "));
    Ok(held.unwrap_or("0").trim().parse()?)
}

async fn reconnects(cluster: &Cluster) -> usize {
    let logs = cluster.logs(Service::ReadModelSync);
    let failed = |line: &&serde_json::Value| line["event"] == "queue_listener_failed_to_connect";
    logs.iter().filter(failed).count()
}

#[tokio::test]
async fn letters_that_a_full_queue_refuses_are_held_while_orders_are_projected_and_dead_lettered_when_there_is_room()
-> anyhow::Result<()> {
    // More than half of the prefetch.
    const GARBAGE: u32 = 700;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    limit_dead_letters(&cluster, Some(1)).await?;
    // A policy takes effect a moment later.
    wait_until("the queue is full", LIMIT, async || {
        broker.publish_raw(b"nonsense", "first").await?;
        Ok(held(&cluster).await? > 0)
    })
    .await?;
    let garbage: Vec<_> = (1..=GARBAGE)
        .map(|number| json!({ "external_id": format!("garbage {number}") }))
        .collect();
    broker.publish(&garbage).await?;
    wait_until("they are held", LIMIT, async || {
        Ok(held(&cluster).await? >= GARBAGE - 100)
    })
    .await?;
    for id in 1..=5 {
        broker.publish([&event(id)]).await?;
        rows_appear(&cluster, id).await?;
    }
    logged(&cluster, "dead_letter_refused").await?;
    assert_eq!(reconnects(&cluster).await, 0, "{}", last_lines(&cluster));

    limit_dead_letters(&cluster, None).await?;
    wait_until("all letters are in their queue", LIMIT, async || {
        let (letters, held) = (broker.dead_letter_count().await?, held(&cluster).await?);
        anyhow::ensure!(letters > GARBAGE && held == 0, "{letters} letters, {held} held");
        Ok(true)
    })
    .await?;
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

#[tokio::test]
async fn a_letter_for_which_the_broker_ends_the_channel_is_held_alone() -> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    let broker = Broker::of(&cluster).await?;
    cluster.stop(Service::ReadModelSync).await?;
    broker.publish_raw(b"nonsense", "small").await?;
    broker
        .publish_raw(&[b'x'; 5000], "larger than what is taken from now on")
        .await?;
    broker.publish_raw(b"nonsense", "small too").await?;
    broker.publish([&event(1)]).await?;
    // A channel keeps the limit that applied when it was opened.
    cluster
        .rabbitmqctl(&["eval", "application:set_env(rabbit, max_message_size, 1000)."])
        .await?;
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, 1).await?;
    logged(&cluster, "dead_letter_refused").await?;
    // Letters of a failed window are published again one by one: there may be two copies of a letter, never none.
    let letters = broker.dead_letters(broker.dead_letter_count().await?).await?;
    let mut names: Vec<&str> = letters.iter().map(|letter| letter.message_id()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["small", "small too"]);
    broker.publish([&event(2)]).await?;
    rows_appear(&cluster, 2).await?;
    assert_eq!(reconnects(&cluster).await, 0, "{}", last_lines(&cluster));

    cluster
        .rabbitmqctl(&["eval", "application:set_env(rabbit, max_message_size, 1000000)."])
        .await?;
    let letters = broker.dead_letters(1).await?;
    assert_eq!(letters[0].body, [b'x'; 5000]);
    Ok(())
}
