//! The outbox and its relay: every accepted order reaches the read model, once, whatever dies meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Options, Service, wait_until};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::json;
use tokio::task::JoinSet;

use super::{buy, count, new_key, order_desk, put_json};

/// Generous: a lease of a relay that was killed lasts 30 s, and a supervisor pauses for up to 20 s.
const LIMIT: Duration = Duration::from_secs(150);

/// Orders and read model as text, row by row.
type Row = (i64, i64, String, String, i64, String, String, String, String);

async fn orders(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    Ok(sqlx::query_as(
        "SELECT o.id, o.client_id, o.external_id::text, o.created_at::text, o.currency_id, c.iso3::text, o.currency_amount::text,
                o.btc_rate::text, o.btc_amount::text
         FROM buy_order o JOIN currency c ON c.id = o.currency_id ORDER BY o.id",
    )
    .fetch_all(cluster.write_model())
    .await?)
}

async fn projected(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    Ok(sqlx::query_as(
        "SELECT id, client_id, external_id::text, created_at::text, currency_id, currency_iso3::text, currency_amount::text,
                btc_rate::text, btc_amount::text
         FROM buy_order_read_model ORDER BY id",
    )
    .fetch_all(cluster.read_model())
    .await?)
}

/// Waits until the outbox is empty and the read model equals the write model; nothing may have been laid aside.
async fn everything_is_projected(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the outbox is empty", LIMIT, async || {
        Ok(count(cluster, "outbox").await? == 0)
    })
    .await?;
    let expected = orders(cluster).await?;
    wait_until("every order is projected", LIMIT, async || {
        Ok(projected(cluster).await?.len() >= expected.len())
    })
    .await?;
    assert_eq!(projected(cluster).await?, expected);
    assert_eq!(ready(&channel(cluster).await?, "buy_order.dead_letter").await?, 0);
    Ok(())
}

/// Places orders, many at once, each by its own key; all must be accepted.
async fn place(cluster: &Cluster, urls: &[String], orders: usize) -> anyhow::Result<()> {
    const CLIENTS: usize = 32;
    let left = Arc::new(AtomicUsize::new(orders));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (http, url, left) = (
            cluster.http(),
            urls[client % urls.len()].clone(),
            Arc::clone(&left),
        );
        clients.spawn(async move {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                let answer = put_json(&http, &url, &cheap_order()).await?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            Ok(())
        });
    }
    clients.join_all().await.into_iter().collect()
}

fn cheap_order() -> serde_json::Value {
    json!({ "currency": "GBP", "amount": "0.01", "idempotence_key": new_key() })
}

async fn channel(cluster: &Cluster) -> anyhow::Result<Channel> {
    let connection = Connection::connect(&cluster.queue().uri(), ConnectionProperties::default()).await?;
    // The channel keeps its connection.
    Ok(connection.create_channel().await?)
}

async fn ready(channel: &Channel, queue: &str) -> anyhow::Result<u32> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    Ok(channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await?
        .message_count())
}

async fn relay_reported(cluster: &Cluster, text: &str) -> anyhow::Result<()> {
    wait_until(&format!("the relay reports {text}"), LIMIT, async || {
        Ok(cluster.logs(Service::CreateBuyOrder).iter().any(|line| {
            line["event"] == "queue_publisher_failed_to_connect" && line["info"].to_string().contains(text)
        }))
    })
    .await
}

#[tokio::test]
async fn a_thousand_orders_accepted_while_the_broker_is_away_are_all_projected_when_it_is_back()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    cluster.stop_broker().await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 1000).await?;
    assert_eq!(
        count(&cluster, "outbox").await?,
        1000,
        "nothing is removed that the broker has not confirmed"
    );
    relay_reported(&cluster, "").await?;

    cluster.start_broker().await?;
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 1000);
    Ok(())
}

#[tokio::test]
async fn an_order_reaches_the_read_model_within_a_second() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    buy(&cluster, "USD", "123.45", &new_key()).await?;
    let limit = Duration::from_secs(1);
    wait_until("the order is projected", limit, async || {
        Ok(projected(&cluster).await?.len() == 1)
    })
    .await?;
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn events_published_again_after_a_relay_died_before_their_removal_change_nothing() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::default()).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 200).await?;
    everything_is_projected(&cluster).await?;
    // What such a relay leaves behind: rows of events that the broker has confirmed, one of them under a lease that is over.
    sqlx::query(
        "INSERT INTO outbox (buy_order_id, claimed_until)
         SELECT id, CASE WHEN id % 2 = 0 THEN clock_timestamp() - interval '1 s' END
         FROM buy_order CROSS JOIN generate_series(1, 2)",
    )
    .execute(cluster.write_model())
    .await?;
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 200);
    Ok(())
}

#[tokio::test]
async fn an_event_under_another_relays_lease_is_left_alone_until_the_lease_is_over() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 1).await?;
    everything_is_projected(&cluster).await?;
    sqlx::query(
        "INSERT INTO outbox (buy_order_id, claimed_until)
         SELECT id, clock_timestamp() + interval '1 hour' FROM buy_order",
    )
    .execute(cluster.write_model())
    .await?;
    // An event that came later is relayed, so the leased one was passed over.
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 1).await?;
    wait_until("only the leased event is left", LIMIT, async || {
        Ok(count(&cluster, "outbox").await? == 1 && projected(&cluster).await?.len() == 2)
    })
    .await?;
    sqlx::query("UPDATE outbox SET claimed_until = clock_timestamp()")
        .execute(cluster.write_model())
        .await?;
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn a_relay_killed_again_and_again_under_load_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    for _ in 0..3 {
        let before = count(&cluster, "buy_order").await?;
        let mut clients = JoinSet::new();
        for _ in 0..16 {
            let (http, url) = (cluster.http(), cluster.url(Service::CreateBuyOrder));
            // Orders until the service is gone; what it answered no more is written or not, either is right.
            clients.spawn(async move { while put_json(&http, &url, &cheap_order()).await.is_ok() {} });
        }
        wait_until("orders come in", LIMIT, async || {
            Ok(count(&cluster, "buy_order").await? > before + 300)
        })
        .await?;
        cluster.kill(Service::CreateBuyOrder).await?;
        clients.join_all().await;
        cluster.start_service(Service::CreateBuyOrder).await?;
    }
    assert!(count(&cluster, "buy_order").await? > 900);
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn two_replicas_relay_side_by_side() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let urls = [
        cluster.url(Service::CreateBuyOrder),
        cluster.start_extra(Service::CreateBuyOrder).await?,
    ];
    place(&cluster, &urls, 1500).await?;
    everything_is_projected(&cluster).await?;

    // And one of them takes up what the other leaves behind.
    cluster.kill_extra(&urls[1]).await?;
    sqlx::query("INSERT INTO outbox (buy_order_id) SELECT id FROM buy_order")
        .execute(cluster.write_model())
        .await?;
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 1500);
    Ok(())
}

#[tokio::test]
async fn an_event_that_no_queue_takes_stays_in_the_outbox_until_one_does() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
    buy(&cluster, "USD", "1", &new_key()).await?;
    wait_until("it is relayed", LIMIT, async || {
        Ok(count(&cluster, "outbox").await? == 0)
    })
    .await?;
    let channel = channel(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 1);

    let exchange = cluster.environment(Service::CreateBuyOrder)?["Q_EXCHANGE"].clone();
    channel
        .queue_unbind(
            "buy_order".into(),
            exchange.into(),
            "buy_order".into(),
            FieldTable::default(),
        )
        .await?;
    buy(&cluster, "USD", "2", &new_key()).await?;
    relay_reported(&cluster, "312 NO_ROUTE").await?;

    // Connecting anew the relay binds the queue again; had it removed the event on the broker's acknowledgement, one message would be missing.
    wait_until("it is relayed", LIMIT, async || {
        Ok(count(&cluster, "outbox").await? == 0)
    })
    .await?;
    assert_eq!(ready(&channel, "buy_order").await?, 2);
    Ok(())
}
