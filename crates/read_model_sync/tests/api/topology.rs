//! A broker that holds exchanges and queues of our names with other options.

use cluster::{Service, wait_until};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};

use super::broker::Broker;
use super::{LIMIT, event, projection, rows_appear};

const QUEUE: &str = "buy_order";

/// The exchange of the original is not durable, and its queue has no arguments.
#[tokio::test]
async fn what_the_original_left_is_named_with_the_brokers_words_and_nothing_else_is_needed_than_to_remove_it()
-> anyhow::Result<()> {
    let cluster = projection().await?;
    cluster.stop(Service::ReadModelSync).await?;
    cluster.stop(Service::Migration).await?;
    let exchange = cluster.environment(Service::ReadModelSync)?["Q_EXCHANGE"].clone();
    let connection = Connection::connect(&cluster.queue().uri(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let (no_exchange, no_queue) = (ExchangeDeleteOptions::default(), QueueDeleteOptions::default());
    channel
        .exchange_delete(exchange.as_str().into(), no_exchange)
        .await?;
    channel.queue_delete(QUEUE.into(), no_queue).await?;
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Direct,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await?;
    channel
        .queue_declare(
            QUEUE.into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        )
        .await?;

    for service in [Service::Migration, Service::ReadModelSync] {
        cluster.launch(service)?;
    }
    let told = async |words: &str| {
        wait_until(words, LIMIT, async || {
            Ok(cluster.logs(Service::Migration).iter().any(|line| {
                let info = line["info"].as_str().unwrap_or_default();
                line["event"] == "queue_not_declared"
                    && info.contains("is declared otherwise")
                    && info.contains(words)
            }))
        })
        .await
    };
    told(&format!("inequivalent arg 'durable' for exchange '{exchange}'")).await?;
    channel
        .exchange_delete(exchange.as_str().into(), no_exchange)
        .await?;
    told("for queue 'buy_order'").await?;
    channel.queue_delete(QUEUE.into(), no_queue).await?;

    let broker = Broker::of(&cluster).await?;
    wait_until("the queue is there", LIMIT, async || {
        // A passive declaration of a missing queue closes the channel.
        Broker::of(&cluster).await?.ready().await.map(|_| true)
    })
    .await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await
}
