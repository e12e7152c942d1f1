use std::time::{Duration, Instant};

use cluster::{Cluster, Link, Options, Server, Service, Traffic, wait_until};
use serde_json::Value;

use super::broker::Broker;
use super::{
    LIMIT, event, logged, projection, projection_with_own_servers, row, row_count, rows, rows_appear,
};

#[tokio::test]
async fn a_read_model_that_is_away_only_delays() -> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    let broker = Broker::of(&cluster).await?;
    let events: Vec<Value> = (1..=600).map(event).collect();
    broker.publish(&events[..100]).await?;
    rows_appear(&cluster, 100).await?;

    cluster.stop_server(Server::ReadModel).await?;
    broker.publish(&events[100..]).await?;
    logged(&cluster, "model_update_failed").await?;
    cluster.start_server(Server::ReadModel).await?;

    rows_appear(&cluster, 600).await?;
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());
    assert_eq!(broker.dead_letter_count().await?, 0);
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

#[tokio::test]
async fn sigterm_while_the_read_model_is_away_gives_the_deliveries_back() -> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    let broker = Broker::of(&cluster).await?;
    cluster.stop_server(Server::ReadModel).await?;
    let events: Vec<Value> = (1..=700).map(event).collect();
    broker.publish(&events).await?;
    logged(&cluster, "model_update_failed").await?;

    let asked = Instant::now();
    let status = cluster.stop(Service::ReadModelSync).await?;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "took {:?}",
        asked.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    wait_until("the deliveries are back", LIMIT, async || {
        Ok(broker.ready().await? == 700)
    })
    .await?;

    cluster.start_server(Server::ReadModel).await?;
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, 700).await?;
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_broker_that_restarts_or_dies_is_consumed_again() -> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    let events: Vec<Value> = (1..=600).map(event).collect();
    Broker::of(&cluster).await?.publish(&events[..200]).await?;
    cluster.stop_broker().await?;
    logged(&cluster, "queue_listener_failed_to_connect").await?;
    cluster.start_broker().await?;
    Broker::of(&cluster).await?.publish(&events[200..400]).await?;
    rows_appear(&cluster, 400).await?;

    // Not earlier: RabbitMQ 3.10 may lose a queue that is seconds old when it is killed, see `common::broker::topology`.
    cluster.kill_broker().await?;
    cluster.start_broker().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish(&events[400..]).await?;
    rows_appear(&cluster, 600).await?;
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_deleted_queue_is_declared_again_and_consumed() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let resource = cluster.queue().api("queues/{vhost}/buy_order");
    let answer = cluster
        .http()
        .delete(resource)
        .basic_auth(&cluster.queue().user, Some(&cluster.queue().password))
        .send()
        .await?;
    assert!(answer.status().is_success(), "{answer:?}");
    logged(&cluster, "queue_listener_failed_to_connect").await?;
    let broker = Broker::of(&cluster).await?;
    wait_until("the queue is there again", LIMIT, async || {
        // A passive declaration of a missing queue closes the channel.
        Broker::of(&cluster).await?.ready().await.map(|_| true)
    })
    .await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing_and_a_restart_completes() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let events: Vec<Value> = (1..=8000).map(event).collect();
    for part in events.chunks(1000) {
        broker.publish(part).await?;
    }
    wait_until("some rows", LIMIT, async || Ok(row_count(&cluster).await? > 0)).await?;
    let asked = Instant::now();
    let status = cluster.stop(Service::ReadModelSync).await?;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "took {:?}",
        asked.elapsed()
    );
    assert_eq!(status.code(), Some(0));
    let done = row_count(&cluster).await?;
    wait_until("what was not done is back in the queue", LIMIT, async || {
        Ok(i64::from(broker.ready().await?) + done >= 8000)
    })
    .await?;

    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, 8000).await?;
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_projector_killed_again_and_again_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let events: Vec<Value> = (1..=6000).map(event).collect();
    for round in events.chunks(2000) {
        let before = row_count(&cluster).await?;
        broker.publish(round).await?;
        wait_until("more rows", LIMIT, async || {
            Ok(row_count(&cluster).await? > before)
        })
        .await?;
        cluster.kill(Service::ReadModelSync).await?;
        cluster.start_service(Service::ReadModelSync).await?;
    }
    rows_appear(&cluster, 6000).await?;
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn while_the_broker_is_short_of_memory_what_is_queued_is_projected_and_a_dead_letter_waits()
-> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    cluster.stop(Service::ReadModelSync).await?;
    let broker = Broker::of(&cluster).await?;
    let events: Vec<Value> = (1..=100).map(event).collect();
    broker.publish(&events).await?;
    broker.publish_raw(b"nonsense", "poison").await?;

    cluster
        .rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"])
        .await?;
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, 100).await?;
    logged(&cluster, "failed_to_sync_buy_order_read_model").await?;
    cluster
        .rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"])
        .await?;
    // The connection of the test published too, and may have been closed because it was silent.
    let broker = Broker::of(&cluster).await?;
    let letters = broker.dead_letters(1).await?;
    assert_eq!(letters[0].body, b"nonsense");
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

/// The latency makes the time a count of round trips: pulled a few at a time, the backlog would take 250. For so long orders would be missing
/// from the pages after a reconnect.
#[tokio::test]
async fn a_backlog_behind_a_slow_network_is_pushed_after_a_few_small_messages() -> anyhow::Result<()> {
    const BACKLOG: i64 = 1000;
    const LATENCY: Duration = Duration::from_millis(100);
    const ROUND_TRIP: Duration = LATENCY.saturating_mul(2);
    const MAX_ROUND_TRIPS: u32 = 125;
    let link = Link::ReadModelSyncToBroker;
    let cluster = Cluster::start(Options::only(&[Service::ReadModelSync]).with_links(&[link])).await?;
    let broker = Broker::of(&cluster).await?;
    cluster.stop(Service::ReadModelSync).await?;
    let events: Vec<Value> = (1..=BACKLOG).map(event).collect();
    broker.publish(&events).await?;
    cluster.link(link)?.set(Traffic::Latency(LATENCY));
    let began = Instant::now();
    cluster.launch(Service::ReadModelSync)?;
    rows_appear(&cluster, BACKLOG).await?;
    let took = began.elapsed();
    assert!(took < ROUND_TRIP * MAX_ROUND_TRIPS, "took {took:?}");
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
