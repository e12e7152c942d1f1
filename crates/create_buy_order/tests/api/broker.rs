//! What the tests need from the broker.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, wait_until};
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};

const LISTED_WITHIN: Duration = Duration::from_secs(60);

/// A channel in the cluster's virtual host.
pub(crate) async fn channel(cluster: &Cluster) -> anyhow::Result<Channel> {
    let connection = Connection::connect(&cluster.queue().uri(), ConnectionProperties::default()).await?;
    // The channel keeps its connection open.
    Ok(connection.create_channel().await?)
}

/// The number of ready messages in a queue.
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

/// Takes all messages from a queue, and returns their ids.
pub(crate) async fn taken(channel: &Channel, queue: &str) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    let no_ack = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.into(), no_ack).await? {
        let id = message.properties.message_id().as_ref();
        ids.push(id.context("a message without an id")?.to_string());
    }
    Ok(ids)
}

/// Makes the broker close every connection of the cluster's virtual host, as an administrator can. Waits until there is a connection.
pub(crate) async fn close_connections(cluster: &Cluster) -> anyhow::Result<()> {
    let broker = cluster.queue();
    let http = cluster.http();
    let mut names: Vec<String> = Vec::new();
    // The broker's list of connections is a few seconds old.
    wait_until("the broker lists its connections", LISTED_WITHIN, async || {
        let request = http.get(broker.api("vhosts/{vhost}/connections"));
        let list = request
            .basic_auth(&broker.user, Some(&broker.password))
            .send()
            .await?;
        let list: Vec<serde_json::Value> = list.error_for_status()?.json().await?;
        names = list
            .iter()
            .filter_map(|connection| Some(connection["name"].as_str()?.to_owned()))
            .collect();
        Ok(!names.is_empty())
    })
    .await?;
    for name in names {
        let mut url = reqwest::Url::parse(&broker.api("connections"))?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("no path"))?
            .push(&name);
        let request = http.delete(url);
        request
            .basic_auth(&broker.user, Some(&broker.password))
            .send()
            .await?;
    }
    Ok(())
}
