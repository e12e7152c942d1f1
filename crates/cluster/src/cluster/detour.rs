//! Diverts the messages of orders, on their way from the exchange to the queue, through a test.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use rustix::process::Signal;

use super::Cluster;
use super::messages::{Broker, ROUTING_KEY, publish_all};
use crate::process::Process;
use crate::service::Service;

/// Routes a message to the queue with the name of the routing key.
const DEFAULT_EXCHANGE: &str = "";

const CANCELLED: &str = "the broker has cancelled the consumer of the detour";

/// A diverted message, as it was published.
#[derive(Debug, Clone)]
pub struct Diverted {
    properties: BasicProperties,
    body: Vec<u8>,
}

impl From<Delivery> for Diverted {
    fn from(delivery: Delivery) -> Self {
        Self {
            properties: delivery.properties,
            body: delivery.data,
        }
    }
}

/// While it exists, published orders go only to the test, which has to [deliver](Self::deliver) them.
pub struct Detour {
    _migration: Option<Frozen>,
    broker: Broker,
    exchange: ShortString,
    queue: ShortString,
    diverted: Consumer,
}

/// A process that goes on when this is dropped.
struct Frozen(Arc<Process>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.0.signal(Signal::CONT);
    }
}

impl Cluster {
    /// Diverts messages that are published from now on to the test instead of the queue of orders. Meanwhile `migration` is frozen: it would
    /// bind the queue again.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn divert_orders(&self) -> anyhow::Result<Detour> {
        let exchange = self.contract.get("Q_EXCHANGE").context("Q_EXCHANGE is missing")?;
        let exchange = ShortString::try_new(exchange.as_str()).context("too long a name")?;
        let migration = self.replica(Service::Migration)?.process().ok().map(Frozen);
        if let Some(Frozen(process)) = &migration {
            process.signal(Signal::STOP)?;
        }
        let broker = self.channel().await?;
        let temporary = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let named_by_the_broker = ShortString::default();
        let declared = broker
            .channel
            .queue_declare(named_by_the_broker, temporary, FieldTable::default())
            .await?;
        let queue = declared.name().clone();
        // Before the other binding is removed: a message that no queue takes would be returned to its publisher.
        bind(&broker.channel, &queue, &exchange).await?;
        let without_acknowledgement = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let diverted = broker
            .channel
            .basic_consume(
                queue.clone(),
                ShortString::default(),
                without_acknowledgement,
                FieldTable::default(),
            )
            .await?;
        unbind(&broker.channel, &ROUTING_KEY.into(), &exchange).await?;
        Ok(Detour {
            _migration: migration,
            broker,
            exchange,
            queue,
            diverted,
        })
    }
}

impl Detour {
    /// Takes the messages that come within this time, at most `max`.
    ///
    /// # Errors
    /// When the broker goes away.
    pub async fn take(&mut self, max: usize, within: Duration) -> anyhow::Result<Vec<Diverted>> {
        let mut taken = Vec::new();
        let end = tokio::time::Instant::now() + within;
        while taken.len() < max {
            let Ok(next) = tokio::time::timeout_at(end, self.diverted.next()).await else {
                break;
            };
            taken.push(next.context(CANCELLED)??.into());
        }
        Ok(taken)
    }

    /// Puts messages into the queue of orders, in this order.
    ///
    /// # Errors
    /// When the broker goes away.
    pub async fn deliver(&self, messages: &[Diverted]) -> anyhow::Result<()> {
        let messages = messages
            .iter()
            .map(|message| (message.properties.clone(), message.body.as_slice()));
        publish_all(&self.broker.channel, &DEFAULT_EXCHANGE.into(), messages).await
    }

    /// Ends the detour. Messages that are still on it are delivered; some of them may be delivered twice.
    ///
    /// # Errors
    /// When the broker goes away.
    pub async fn end(mut self) -> anyhow::Result<()> {
        bind(&self.broker.channel, &ROUTING_KEY.into(), &self.exchange).await?;
        unbind(&self.broker.channel, &self.queue, &self.exchange).await?;
        // Marks the end of the diverted messages. It differs from them in its exchange.
        let last = self
            .broker
            .channel
            .basic_publish(
                DEFAULT_EXCHANGE.into(),
                self.queue.clone(),
                BasicPublishOptions::default(),
                b"last",
                BasicProperties::default(),
            )
            .await?;
        last.await?;
        let mut rest = Vec::new();
        loop {
            let delivery = self.diverted.next().await.context(CANCELLED)??;
            if delivery.exchange.as_str() == DEFAULT_EXCHANGE {
                break;
            }
            rest.push(Diverted::from(delivery));
        }
        self.deliver(&rest).await?;
        self.broker.close().await
    }
}

async fn bind(channel: &Channel, queue: &ShortString, exchange: &ShortString) -> anyhow::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.clone(),
            exchange.clone(),
            ROUTING_KEY.into(),
            options,
            FieldTable::default(),
        )
        .await?;
    Ok(())
}

async fn unbind(channel: &Channel, queue: &ShortString, exchange: &ShortString) -> anyhow::Result<()> {
    channel
        .queue_unbind(
            queue.clone(),
            exchange.clone(),
            ROUTING_KEY.into(),
            FieldTable::default(),
        )
        .await?;
    Ok(())
}
