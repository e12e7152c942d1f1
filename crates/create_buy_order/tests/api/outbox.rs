//! The outbox and its relay: every accepted order reaches the read model once, whichever process dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Options, Service, wait_until};
use lapin::Channel;
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::task::JoinSet;

use super::broker::{channel, ready, taken};
use super::{buy, count, new_key, put_json, start_cluster, two_processes};

/// The lease of a killed relay lasts 5 s, and a supervisor pauses for some seconds.
const LIMIT: Duration = Duration::from_secs(150);

/// Declares a durable queue that is bound to the exchange by its own name.
async fn declare_and_bind(
    cluster: &Cluster,
    channel: &Channel,
    queue: &str,
    arguments: FieldTable,
) -> anyhow::Result<()> {
    let exchange = cluster.environment(Service::CreateBuyOrder)?["Q_EXCHANGE"].clone();
    let durable = QueueDeclareOptions::durable();
    channel.queue_declare(queue.into(), durable, arguments).await?;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            queue.into(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok(())
}

/// The rows of both models, as text.
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

pub(crate) async fn projected(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    Ok(sqlx::query_as(
        "SELECT id, client_id, external_id::text, created_at::text, currency_id, currency_iso3::text, currency_amount::text,
                btc_rate::text, btc_amount::text
         FROM buy_order_read_model ORDER BY id",
    )
    .fetch_all(cluster.read_model())
    .await?)
}

/// Waits until the outbox is empty and the models are equal. There must be no dead letter.
pub(crate) async fn everything_is_projected(cluster: &Cluster) -> anyhow::Result<()> {
    outbox_empties(cluster).await?;
    let expected = orders(cluster).await?;
    wait_until("every order is projected", LIMIT, async || {
        Ok(projected(cluster).await?.len() >= expected.len())
    })
    .await?;
    assert_eq!(projected(cluster).await?, expected);
    assert_eq!(ready(&channel(cluster).await?, "buy_order.dead_letter").await?, 0);
    Ok(())
}

/// Places many orders at once. All must be accepted.
pub(crate) async fn place(cluster: &Cluster, urls: &[String], orders: usize) -> anyhow::Result<()> {
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
                let answer = put_json(&http, &url, &cluster::new_order("GBP", "0.01")).await?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            Ok(())
        });
    }
    clients.join_all().await.into_iter().collect()
}

pub(crate) async fn outbox_empties(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the outbox is empty", LIMIT, async || {
        Ok(count(cluster, "outbox").await? == 0)
    })
    .await
}

/// Writes another message for every order.
pub(crate) async fn send_everything_again(cluster: &Cluster) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO outbox (type, routing_key, message_id, payload)
         SELECT 'buy_order_created', 'buy_order', o.external_id, buy_order_created_payload(o, currency.iso3)
           FROM buy_order AS o JOIN currency ON currency.id = o.currency_id ORDER BY o.id",
    )
    .execute(cluster.write_model())
    .await?;
    Ok(())
}

/// Writes a message with this routing key, and returns its id.
async fn write_message(cluster: &Cluster, routing_key: &str) -> anyhow::Result<String> {
    Ok(sqlx::query_scalar(
        "INSERT INTO outbox (type, routing_key, message_id, payload) VALUES ('something', $1, gen_random_uuid(), '{}')
         RETURNING message_id::text",
    )
    .bind(routing_key)
    .fetch_one(cluster.write_model())
    .await?)
}

async fn messages_left(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    Ok(
        sqlx::query_scalar("SELECT message_id::text FROM outbox ORDER BY id")
            .fetch_all(cluster.write_model())
            .await?,
    )
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

/// Makes deletes from the outbox wait for a lock that the test holds.
const REMOVALS_WAIT: &str = "
    CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN OLD; END';
    CREATE TRIGGER removals_wait BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION wait_for_the_test()";

/// The sessions whose delete waits.
const WAITING_REMOVALS: &str = "
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";

async fn waiting_removals(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    Ok(sqlx::query_scalar(WAITING_REMOVALS)
        .fetch_all(cluster.write_model())
        .await?)
}

#[tokio::test]
async fn a_relay_killed_between_confirm_and_removal_publishes_again_and_the_read_model_has_the_order_once()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let pool = cluster.write_model();
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *lock)
        .await?;
    sqlx::raw_sql(REMOVALS_WAIT).execute(pool).await?;
    assert_eq!(buy(&cluster, "USD", "123.45", &new_key()).await?.status, 200);
    wait_until("the removal waits", LIMIT, async || {
        Ok(waiting_removals(&cluster).await?.len() == 1)
    })
    .await?;
    let channel = channel(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 1, "the broker has the event");

    cluster.kill(Service::CreateBuyOrder).await?;
    // The server has not noticed that its client is gone, and would continue when it gets the lock.
    for session in waiting_removals(&cluster).await? {
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(session)
            .execute(pool)
            .await?;
    }
    wait_until("the removal is given up", LIMIT, async || {
        Ok(waiting_removals(&cluster).await?.is_empty())
    })
    .await?;
    lock.rollback().await?;
    sqlx::raw_sql("DROP TRIGGER removals_wait ON outbox")
        .execute(pool)
        .await?;
    assert_eq!(count(&cluster, "outbox").await?, 1, "nothing was removed");

    cluster.start_service(Service::CreateBuyOrder).await?;
    outbox_empties(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 2, "it was published again");

    // This order comes last in the queue. When it is projected, both events of the first one have been consumed.
    assert_eq!(buy(&cluster, "EUR", "1", &new_key()).await?.status, 200);
    cluster.start_service(Service::ReadModelSync).await?;
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_relay_killed_again_and_again_under_load_loses_and_doubles_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    for _ in 0..3 {
        let before = count(&cluster, "buy_order").await?;
        let mut clients = JoinSet::new();
        for _ in 0..16 {
            let (http, url) = (cluster.http(), cluster.url(Service::CreateBuyOrder));
            // Orders until the service is gone. An order without an answer may be written or not.
            clients.spawn(async move {
                while put_json(&http, &url, &cluster::new_order("GBP", "0.01"))
                    .await
                    .is_ok()
                {}
            });
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
async fn what_one_of_two_replicas_leaves_behind_is_relayed_by_the_other() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let urls = two_processes(&cluster).await?;
    place(&cluster, &urls, 1500).await?;
    everything_is_projected(&cluster).await?;

    cluster.kill(Service::CreateBuyOrder).await?;
    send_everything_again(&cluster).await?;
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 1500);
    Ok(())
}

#[tokio::test]
async fn an_event_that_no_queue_takes_stays_in_the_outbox_until_one_does() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    buy(&cluster, "USD", "1", &new_key()).await?;
    outbox_empties(&cluster).await?;
    let channel = channel(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 1);

    let exchange = cluster.environment(Service::CreateBuyOrder)?["Q_EXCHANGE"].clone();
    // It would bind the queue again.
    cluster.stop(Service::Migration).await?;
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

    assert_eq!(count(&cluster, "outbox").await?, 1, "it stays in the outbox");
    cluster.start_service(Service::Migration).await?;
    outbox_empties(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_queue_that_somebody_replaced_by_a_lesser_one_is_noticed_and_gets_no_more_events()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    buy(&cluster, "USD", "1", &new_key()).await?;
    outbox_empties(&cluster).await?;
    let channel = channel(&cluster).await?;
    let queue = "buy_order";
    channel
        .queue_delete(queue.into(), QueueDeleteOptions::default())
        .await?;
    declare_and_bind(&cluster, &channel, queue, FieldTable::default()).await?;
    wait_until("migration reports it", LIMIT, async || {
        Ok(cluster.logs(Service::Migration).iter().any(|line| {
            let info = line["info"].as_str().unwrap_or_default();
            line["event"] == "queue_not_declared"
                && info.contains("is declared otherwise")
                && info.contains("for queue 'buy_order'")
        }))
    })
    .await?;

    let confirmed_before = ready(&channel, queue).await?;
    buy(&cluster, "USD", "2", &new_key()).await?;
    // The queue is bound no more.
    relay_reported(&cluster, "312 NO_ROUTE").await?;
    // By then the relay has read the outbox several times.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(count(&cluster, "outbox").await?, 1, "it stays in the outbox");
    assert_eq!(ready(&channel, queue).await?, confirmed_before);

    channel
        .queue_delete(queue.into(), QueueDeleteOptions::default())
        .await?;
    outbox_empties(&cluster).await
}

#[tokio::test]
async fn a_message_that_no_queue_takes_holds_up_no_other() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let unroutable = write_message(&cluster, "nowhere").await?;
    let url = [cluster.url(Service::CreateBuyOrder)];
    let orders = 20;
    for _ in 0..2 {
        place(&cluster, &url, orders / 2).await?;
        wait_until("the others are relayed", LIMIT, async || {
            Ok(messages_left(&cluster).await? == [unroutable.as_str()])
        })
        .await?;
    }
    relay_reported(&cluster, "312 NO_ROUTE").await?;
    assert_eq!(messages_left(&cluster).await?, [unroutable]);
    let mut ids = taken(&channel(&cluster).await?, "buy_order").await?;
    assert_eq!(ids.len(), orders, "each once");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), orders);
    Ok(())
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_stays_until_it_takes_it_and_the_others_go() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let channel = channel(&cluster).await?;
    // The exchange exists as soon as an order was published.
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    // The queue holds one message and refuses the next.
    let queue = "small";
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    declare_and_bind(&cluster, &channel, queue, arguments).await?;
    let first = write_message(&cluster, queue).await?;
    wait_until("the first is relayed", LIMIT, async || {
        Ok(messages_left(&cluster).await?.is_empty())
    })
    .await?;
    let refused = write_message(&cluster, queue).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 10).await?;
    relay_reported(&cluster, "refused by the broker").await?;
    wait_until("the others are relayed", LIMIT, async || {
        Ok(messages_left(&cluster).await? == [refused.as_str()])
    })
    .await?;
    assert_eq!(ready(&channel, "buy_order").await?, 1 + 10, "each once");

    assert_eq!(taken(&channel, queue).await?, [first]);
    outbox_empties(&cluster).await?;
    assert_eq!(taken(&channel, queue).await?, [refused]);
    Ok(())
}
