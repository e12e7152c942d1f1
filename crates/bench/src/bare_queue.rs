//! A quorum queue alone, with the options of the queue of orders: its throughput, and how long it takes for a message while orders load the
//! machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service};
use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{Connector, Consumer, Event, Outgoing, Publisher, Session, Unconfirmed, WINDOW};
use common::buy_order_event::BuyOrderCreated;
use common::endpoints::Queue;
use common::env::Env;
use common::trace_context::context_of;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::figures::figure;
use crate::management;

/// As the projector.
const PREFETCH: u16 = 1000;
const BATCH: usize = 500;

/// Short enough for thousands of messages in a load, and long enough not to add to it.
const BETWEEN_LONE_MESSAGES: Duration = Duration::from_millis(10);

/// Limit for the rest of the messages after the last one was confirmed.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// What went through the queue.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The number of messages.
    pub messages: u64,
    /// The time from the first publish to the last acknowledgement.
    pub elapsed: Duration,
}

impl Outcome {
    /// Messages per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        figure(self.messages) / self.elapsed.as_secs_f64()
    }
}

/// Sends messages through a new queue. They are published for `duration`, [`WINDOW`] at a time, on one connection, and consumed on another.
///
/// # Errors
/// When the broker refuses a message, or one does not arrive.
pub async fn run(cluster: &Cluster, duration: Duration) -> anyhow::Result<Outcome> {
    let name = create(cluster).await?;
    let measured = measure(cluster, &name, duration).await;
    cluster.delete_queue(&name).await?;
    measured
}

/// Sends single messages through a new queue for `duration`, the next one after the one before has arrived. Returns how long each took from
/// the publish to the consumer, in µs, sorted.
///
/// # Errors
/// As [`run`].
pub async fn lone_messages(cluster: &Cluster, duration: Duration) -> anyhow::Result<Vec<u32>> {
    let name = create(cluster).await?;
    let measured = measure_lone_messages(cluster, &name, duration).await;
    cluster.delete_queue(&name).await?;
    measured
}

/// Creates a queue and returns its name.
async fn create(cluster: &Cluster) -> anyhow::Result<String> {
    let name = format!("bench.{}", Uuid::new_v4().simple());
    let options = management::get(cluster, &format!("queues/{{vhost}}/{BUY_ORDER_QUEUE}")).await?;
    let queue = json!({"durable": true, "arguments": options["arguments"]});
    management::put(cluster, &format!("queues/{{vhost}}/{name}"), &queue).await?;
    Ok(name)
}

/// The two ends of a queue, on a connection each, as the services have them.
struct Ends {
    publisher: Publisher,
    consuming: Session,
    consumer: Consumer,
}

impl Ends {
    async fn open(cluster: &Cluster, queue: &str) -> anyhow::Result<Self> {
        // As the administrator: no service may use another queue than its own.
        let mut environment = cluster.environment(Service::ReadModelSync)?;
        environment.extend(cluster.queue().variables());
        let mut env = Env::from_pairs(environment);
        let endpoint = Queue::from_env(&mut env);
        let connector = Connector {
            endpoint: env.finish(endpoint)?,
            queue: BUY_ORDER_QUEUE,
            name: "bench",
        };
        let consuming = Session::open(&connector).await?;
        let mut consumer = Consumer::pulling(&consuming, queue).await?;
        consumer.subscribe(PREFETCH).await?;
        Ok(Self {
            publisher: Publisher::open(&connector).await?,
            consuming,
            consumer,
        })
    }
}

async fn measure(cluster: &Cluster, name: &str, duration: Duration) -> anyhow::Result<Outcome> {
    let window = window(name)?;
    let Ends {
        publisher,
        consuming,
        consumer,
    } = Ends::open(cluster, name).await?;
    let began = Instant::now();
    let (published, wanted) = oneshot::channel();
    // In two tasks, as the services are two processes.
    let publish = tokio::spawn(publish(publisher, window, duration));
    let consume = tokio::spawn(consume(consumer, wanted));
    let (publisher, count) = publish.await??;
    let _ = published.send(count);
    tokio::time::timeout(DRAINED_WITHIN, consume)
        .await
        .context("messages that were confirmed did not arrive")???;
    let elapsed = began.elapsed();
    publisher.session.close().await;
    consuming.close().await;
    Ok(Outcome {
        messages: count,
        elapsed,
    })
}

async fn measure_lone_messages(
    cluster: &Cluster,
    name: &str,
    duration: Duration,
) -> anyhow::Result<Vec<u32>> {
    let mut window = window(name)?;
    window.truncate(1);
    let Ends {
        mut publisher,
        consuming,
        mut consumer,
    } = Ends::open(cluster, name).await?;
    let mut latencies = Vec::new();
    let began = Instant::now();
    while began.elapsed() < duration {
        let published = Instant::now();
        let arrives = async {
            let batch = consumer.next_batch(1).await?;
            let latency = u32::try_from(published.elapsed().as_micros())?;
            let last = batch.last().context("an empty batch")?;
            consumer.acknowledge_through(last.delivery_tag).await?;
            anyhow::Ok(latency)
        };
        let published = async { confirmed(publisher.publish_all(&window).await?) };
        let both = async { tokio::try_join!(published, arrives) };
        let (_, latency) = tokio::time::timeout(DRAINED_WITHIN, both)
            .await
            .context("a message did not arrive")??;
        latencies.push(latency);
        tokio::time::sleep(BETWEEN_LONE_MESSAGES).await;
    }
    publisher.session.close().await;
    consumer.close().await?;
    consuming.close().await;
    latencies.sort_unstable();
    Ok(latencies)
}

/// Realistic events for this queue.
fn window(queue: &str) -> anyhow::Result<Vec<Outgoing>> {
    let message = |id: usize| {
        let order = BuyOrderCreated {
            id: i64::try_from(100_000 + id)?,
            client_id: 1,
            external_id: Uuid::new_v4(),
            created_at: OffsetDateTime::now_utc(),
            currency_id: 1,
            currency_iso3: "USD".to_owned(),
            currency_amount: "0.01".parse()?,
            btc_rate: "48478.88".parse()?,
            btc_amount: "0.00000021".parse()?,
        };
        let event = Event {
            kind: BuyOrderCreated::MESSAGE_TYPE.to_owned(),
            // The default exchange reaches a queue by its name.
            routing_key: queue.to_owned(),
            message_id: order.external_id,
            payload: serde_json::to_string(&order)?,
            created_at: order.created_at,
        };
        Ok(Outgoing::event("", "bench", &event, &context_of(None, None)))
    };
    (0..WINDOW).map(message).collect()
}

/// Returns the publisher and the number of published messages.
async fn publish(
    mut publisher: Publisher,
    window: Vec<Outgoing>,
    duration: Duration,
) -> anyhow::Result<(Publisher, u64)> {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < duration {
        count += confirmed(publisher.publish_all(&window).await?)?;
    }
    Ok((publisher, count))
}

/// The number of messages, if the broker took all of them.
fn confirmed(results: Vec<Result<(), Unconfirmed>>) -> anyhow::Result<u64> {
    let refused = results.iter().find(|result| result.is_err());
    ensure!(
        refused.is_none(),
        "the broker did not take a message: {refused:?}"
    );
    Ok(results.len() as u64)
}

/// Consumes until as many messages have come as were published.
async fn consume(mut consumer: Consumer, mut wanted: oneshot::Receiver<u64>) -> anyhow::Result<()> {
    let (mut count, mut published) = (0, None);
    while published != Some(count) {
        tokio::select! {
            all = &mut wanted, if published.is_none() => published = Some(all?),
            batch = consumer.next_batch(BATCH) => {
                let batch = batch?;
                count += batch.len() as u64;
                let last = batch.last().context("an empty batch")?;
                consumer.acknowledge_through(last.delivery_tag).await?;
            }
        }
    }
    Ok(consumer.close().await?)
}
