//! The queues and messages of a cluster's virtual host.

use anyhow::{Context as _, bail};
use base64::Engine as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Cluster;

/// The routing key of orders is the name of their queue.
pub(super) const ROUTING_KEY: &str = common::broker::topology::BUY_ORDER_QUEUE;
const PERSISTENT: u8 = 2;

/// A message to publish as it is, valid or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    /// The body.
    pub body: Vec<u8>,
    /// AMQP's `message_id`.
    pub message_id: Option<String>,
    /// AMQP's `type`.
    pub message_type: Option<String>,
}

/// A message that waits in a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Peeked {
    /// AMQP's `message_id`.
    pub message_id: Option<String>,
    /// AMQP's `type`.
    pub message_type: Option<String>,
    /// The headers, as JSON.
    pub headers: Map<String, Value>,
    /// The body.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Got {
    payload: String,
    properties: Value,
}

#[derive(Deserialize)]
struct Binding {
    source: String,
    properties_key: String,
}

impl Cluster {
    /// Deletes a queue with its messages.
    ///
    /// # Errors
    /// When there is none, or the broker is away.
    pub async fn delete_queue(&self, name: &str) -> anyhow::Result<()> {
        let queue = format!("queues/{{vhost}}/{name}");
        self.manage(Method::DELETE, &queue, None).await.map(drop)
    }

    /// Removes every binding of a queue, so that published messages no longer reach it.
    ///
    /// # Errors
    /// When it has none, or the broker is away.
    pub async fn unbind_queue(&self, name: &str) -> anyhow::Result<()> {
        let bindings = format!("queues/{{vhost}}/{name}/bindings");
        let mut bindings: Vec<Binding> = self.manage(Method::GET, &bindings, None).await?.json().await?;
        // The binding to the default exchange cannot be removed.
        bindings.retain(|binding| !binding.source.is_empty());
        if bindings.is_empty() {
            bail!("the queue {name} is not bound");
        }
        for binding in bindings {
            let Binding {
                source,
                properties_key,
            } = binding;
            let binding = format!("bindings/{{vhost}}/e/{source}/q/{name}/{properties_key}");
            self.manage(Method::DELETE, &binding, None).await?;
        }
        Ok(())
    }

    /// Deletes the messages that wait in a queue. Messages that a consumer holds stay.
    ///
    /// # Errors
    /// When there is no such queue, or the broker is away.
    pub async fn purge_queue(&self, name: &str) -> anyhow::Result<()> {
        let broker = self.channel().await?;
        let name = ShortString::try_new(name).context("the name is too long")?;
        broker
            .channel
            .queue_purge(name, QueuePurgeOptions::default())
            .await?;
        broker.close().await
    }

    /// The exact number of messages that wait in a queue, without those that a consumer holds.
    ///
    /// # Errors
    /// When there is no such queue, or the broker is away.
    pub async fn queue_messages(&self, name: &str) -> anyhow::Result<u64> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::durable()
        };
        let broker = self.channel().await?;
        let queue = broker
            .channel
            .queue_declare(
                ShortString::try_new(name).context("the name is too long")?,
                options,
                FieldTable::default(),
            )
            .await?;
        broker.close().await?;
        Ok(queue.message_count().into())
    }

    /// Reads up to `max` messages that wait in a queue. They stay there, marked as redelivered.
    ///
    /// # Errors
    /// When there is no such queue, or the broker is away.
    pub async fn peek_messages(&self, name: &str, max: u32) -> anyhow::Result<Vec<Peeked>> {
        let body = json!({"count": max, "ackmode": "ack_requeue_true", "encoding": "base64"});
        let queue = format!("queues/{{vhost}}/{name}/get");
        let messages: Vec<Got> = self
            .manage(Method::POST, &queue, Some(&body))
            .await?
            .json()
            .await?;
        messages.into_iter().map(Peeked::try_from).collect()
    }

    /// Publishes messages unchanged and persistent to the exchange of events, and waits until they are in the queue of orders.
    ///
    /// # Errors
    /// When the broker refuses a message, no queue takes it, or the broker is away.
    pub async fn publish(&self, messages: &[Raw]) -> anyhow::Result<()> {
        let exchange = self.contract.get("Q_EXCHANGE").context("Q_EXCHANGE is missing")?;
        let exchange = ShortString::try_new(exchange.as_str()).context("the name is too long")?;
        let properties = messages.iter().map(properties);
        let properties = properties.collect::<anyhow::Result<Vec<_>>>()?;
        let bodies = messages.iter().map(|message| message.body.as_slice());
        let broker = self.channel().await?;
        publish_all(&broker.channel, &exchange, properties.into_iter().zip(bodies)).await?;
        broker.close().await
    }

    pub(super) async fn channel(&self) -> anyhow::Result<Broker> {
        let connection = Connection::connect(&self.queue().uri(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Broker { connection, channel })
    }

    /// Sends a request to the management API, which must succeed.
    pub(super) async fn manage(
        &self,
        method: Method,
        resource: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let broker = self.queue();
        let mut request = self.http.request(method.clone(), broker.api(resource));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .basic_auth(&broker.user, Some(&broker.password))
            .send()
            .await
            .context("RabbitMQ's management interface does not answer")?;
        match answer.status() {
            StatusCode::NOT_FOUND => bail!("the broker has no {resource}"),
            status if status.is_success() => Ok(answer),
            status => bail!("RabbitMQ answered {status} to {method} {resource}"),
        }
    }
}

pub(super) struct Broker {
    connection: Connection,
    pub(super) channel: Channel,
}

impl Broker {
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close(200, "done".into()).await?)
    }
}

/// Publishes messages and waits until all are in the queue of orders.
pub(super) async fn publish_all(
    channel: &Channel,
    exchange: &ShortString,
    messages: impl Iterator<Item = (BasicProperties, &[u8])>,
) -> anyhow::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // Mandatory: a message that no queue takes is returned.
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let mut pending = Vec::new();
    for (properties, body) in messages {
        let publish = channel.basic_publish(exchange.clone(), ROUTING_KEY.into(), options, body, properties);
        pending.push(publish.await?);
    }
    for confirmation in pending {
        match confirmation.await? {
            Confirmation::Ack(None) => {}
            refusal => bail!("the broker refused a message: {refusal:?}"),
        }
    }
    Ok(())
}

fn properties(message: &Raw) -> anyhow::Result<BasicProperties> {
    let short =
        |text: &String| ShortString::try_new(text.as_str()).context("longer than AMQP's short string");
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT);
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(short(id)?);
    }
    if let Some(kind) = &message.message_type {
        properties = properties.with_type(short(kind)?);
    }
    Ok(properties)
}

impl TryFrom<Got> for Peeked {
    type Error = anyhow::Error;

    fn try_from(got: Got) -> anyhow::Result<Self> {
        let text = |name: &str| got.properties[name].as_str().map(str::to_owned);
        let headers = got.properties["headers"].as_object();
        Ok(Self {
            message_id: text("message_id"),
            message_type: text("type"),
            // Without headers the broker writes an empty list.
            headers: headers.cloned().unwrap_or_default(),
            payload: base64::engine::general_purpose::STANDARD.decode(&got.payload)?,
        })
    }
}
