//! The test's own connection to the broker of its cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, wait_until};
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::Value;

use super::LIMIT;

const QUEUE: &str = "buy_order";
const DEAD_LETTERS: &str = "buy_order.dead_letter";

pub(crate) struct Broker {
    /// Keeps the connection open, which closes with its last channel.
    _connection: Connection,
    channel: Channel,
    exchange: String,
}

/// A dead letter.
pub(crate) struct Letter {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

impl Letter {
    pub(crate) fn message_id(&self) -> &str {
        self.properties.message_id().as_ref().map_or("", |id| id.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        match self.properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => Some(format!("{other:?}")),
        }
    }
}

impl Broker {
    pub(crate) async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let connection = Connection::connect(&cluster.queue().uri(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let exchange = cluster
            .environment(cluster::Service::ReadModelSync)?
            .get("Q_EXCHANGE")
            .map_or_else(|| "pydist".to_owned(), Clone::clone);
        Ok(Self {
            _connection: connection,
            channel,
            exchange,
        })
    }

    /// Publishes events until the broker has confirmed each: a queue that has just been declared may not be bound yet, and one whose node
    /// has just started may have no leader yet. Confirmed events may be published again.
    pub(crate) async fn publish<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Value>,
    ) -> anyhow::Result<()> {
        let events: Vec<&Value> = events.into_iter().collect();
        wait_until("the broker takes the events", LIMIT, async || {
            let mut pending = Vec::new();
            for event in &events {
                let id = event["external_id"].as_str().unwrap_or("no id");
                pending.push(self.send(event.to_string().as_bytes(), id).await?);
            }
            let mut taken = true;
            for confirmation in pending {
                // A queue without a leader does not answer: an error is better than a test that hangs.
                let confirmation = tokio::time::timeout(Duration::from_secs(20), confirmation).await;
                taken &= confirmation.context("the queue keeps silent")?? == Confirmation::Ack(None);
            }
            Ok(taken)
        })
        .await
    }

    pub(crate) async fn publish_raw(&self, body: &[u8], message_id: &str) -> anyhow::Result<()> {
        taken(self.send(body, message_id).await?).await
    }

    /// Publishes an event with this type.
    pub(crate) async fn publish_typed(&self, event: &Value, kind: &str) -> anyhow::Result<()> {
        let id = event["external_id"].as_str().unwrap_or("no id");
        let properties = properties(id, "").with_type(kind.into());
        taken(self.send_with(event.to_string().as_bytes(), properties).await?).await
    }

    /// Publishes an event with an additional text header.
    pub(crate) async fn publish_with_header(&self, event: &Value, text: &str) -> anyhow::Result<()> {
        let id = event["external_id"].as_str().unwrap_or("no id");
        taken(
            self.send_with(event.to_string().as_bytes(), properties(id, text))
                .await?,
        )
        .await
    }

    async fn send(&self, body: &[u8], message_id: &str) -> anyhow::Result<lapin::PublisherConfirm> {
        self.send_with(body, properties(message_id, "")).await
    }

    async fn send_with(
        &self,
        body: &[u8],
        properties: BasicProperties,
    ) -> anyhow::Result<lapin::PublisherConfirm> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let exchange = self.exchange.as_str().into();
        Ok(self
            .channel
            .basic_publish(exchange, QUEUE.into(), options, body, properties)
            .await?)
    }

    /// Messages ready for delivery, without those that a consumer holds.
    pub(crate) async fn ready(&self) -> anyhow::Result<u32> {
        self.message_count(QUEUE).await
    }

    pub(crate) async fn dead_letter_count(&self) -> anyhow::Result<u32> {
        self.message_count(DEAD_LETTERS).await
    }

    /// Consumers of the dead-letter queue. When one is no longer counted, its letters are back in the queue.
    pub(crate) async fn dead_letter_readers(&self) -> anyhow::Result<u32> {
        Ok(self.queue(DEAD_LETTERS).await?.consumer_count())
    }

    async fn message_count(&self, queue: &str) -> anyhow::Result<u32> {
        Ok(self.queue(queue).await?.message_count())
    }

    async fn queue(&self, queue: &str) -> anyhow::Result<lapin::Queue> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        Ok(self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await?)
    }

    /// Waits for this many dead letters and removes them from their queue, in order.
    pub(crate) async fn dead_letters(&self, expected: u32) -> anyhow::Result<Vec<Letter>> {
        wait_until(&format!("{expected} dead letters"), LIMIT, async || {
            Ok(self.dead_letter_count().await? >= expected)
        })
        .await?;
        let mut letters = Vec::new();
        for _ in 0..self.dead_letter_count().await? {
            let got = self
                .channel
                .basic_get(DEAD_LETTERS.into(), BasicGetOptions { no_ack: true })
                .await?;
            let delivery = got.context("the dead letter is gone")?.delivery;
            letters.push(Letter {
                body: delivery.data,
                properties: delivery.properties,
            });
        }
        ensure!(
            letters.len() == usize::try_from(expected)?,
            "{} dead letters",
            letters.len()
        );
        Ok(letters)
    }
}

fn properties(message_id: &str, header: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString("00-a-b-01".into()));
    if !header.is_empty() {
        headers.insert("a-header".into(), AMQPValue::LongString(header.into()));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(message_id.into())
        .with_headers(headers)
}

async fn taken(confirm: lapin::PublisherConfirm) -> anyhow::Result<()> {
    ensure!(
        confirm.await? == Confirmation::Ack(None),
        "the broker did not take the message"
    );
    Ok(())
}
