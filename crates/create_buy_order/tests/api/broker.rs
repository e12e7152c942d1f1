//! What the tests ask of the broker.

use cluster::Cluster;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};

/// A channel in the cluster's virtual host.
pub(crate) async fn channel(cluster: &Cluster) -> anyhow::Result<Channel> {
    let connection = Connection::connect(&cluster.queue().uri(), ConnectionProperties::default()).await?;
    // The channel keeps its connection.
    Ok(connection.create_channel().await?)
}

/// How many messages of a queue wait for a consumer.
pub(crate) async fn ready(channel: &Channel, queue: &str) -> anyhow::Result<u32> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    Ok(channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await?
        .message_count())
}
