//! An admin process: publishes the orders of the write model and their voids again, so that a read model that was emptied or lost becomes equal to it. It
//! does not use the outbox. Services may run meanwhile; the read model keeps the rows that it has.

mod progress;

use std::time::Duration;

use anyhow::Context as _;
use common::broker::topology::BUY_ORDER_QUEUE;
use common::broker::{self, Connector, Event, Outgoing, Publisher, Role, Session, Supervisor, Worker};
use common::database::{self, Pool, with_connection};
use common::endpoints::{Database, Queue};
use common::env::Env;
use common::retry::Backoff;
use common::service::{Outcome, print};
use opentelemetry::Context;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::db::history;
use crate::relay::Interrupted;
use progress::Progress;

/// Which orders, and how fast.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Only orders and voids written at this time or later, for example 2026-11-23T15:37:32Z
    #[arg(long, value_name = "RFC3339", value_parser = read_time, conflicts_with_all = ["from_id", "to_id"])]
    since: Option<OffsetDateTime>,
    /// Only orders with this id or a higher one
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) from_id: Option<i64>,
    /// Only orders with this id or a lower one
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) to_id: Option<i64>,
    /// How many orders to send in a second at most, so that new ones are not held up
    #[arg(long, value_name = "ORDERS_PER_S", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

fn read_time(text: &str) -> Result<OffsetDateTime, String> {
    let time =
        OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("no time in RFC 3339: {error}"))?;
    // The database driver converts it to UTC, and panics beyond the year 9999.
    time.checked_to_offset(UtcOffset::UTC)
        .ok_or_else(|| "beyond the year 9999 in UTC".to_owned())
}

/// What this process reads from the environment.
#[derive(Debug, Clone)]
pub struct Config {
    write_model: Database,
    queue: Queue,
}

impl Config {
    /// Reads `WRITE_MODEL_DB_…` and `Q_…`; faults are collected in `env`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            write_model: Database::from_env(env, "WRITE_MODEL_DB"),
            queue: Queue::from_env(env),
        }
    }
}

/// Publishes every order of the range that exists when it begins, and ends when the broker has confirmed the last one. Outages of the
/// broker only delay it. When it is interrupted, it prints how to go on.
///
/// # Errors
/// When the write model fails. Starting again is safe.
pub async fn run(config: Config, options: Options, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    let opening = History::open(&config, options, stopping.clone());
    let Some(history) = stopping.run_until_cancelled(opening).await else {
        print("interrupted: nothing was sent\n").await?;
        return Ok(Outcome::NotDone);
    };
    let Some(mut history) = history? else {
        print("no order is in this range: there is nothing to send\n").await?;
        return Ok(Outcome::Done);
    };
    let connector = Connector {
        endpoint: config.queue,
        queue: BUY_ORDER_QUEUE,
        name: "create_buy_order republish",
    };
    let supervisor = Supervisor::new(connector, Role::Publisher, stopping);
    supervisor.run(None, &mut history).await;
    history.progress.finish();
    print(&history.summary()).await?;
    history.outcome
}

/// The orders to send, and how far sending has come.
struct History {
    pool: Pool,
    exchange: String,
    options: Options,
    /// How many orders are sent at each tick.
    batch: i64,
    ticks: Interval,
    first_id: i64,
    last_id: i64,
    /// Voids since the time that was asked for, of orders before it. They are few, because people make them, and are sent first.
    older_voids: Vec<Event>,
    /// The first id that the broker has not confirmed.
    next_id: i64,
    /// How many orders were sent.
    sent: usize,
    /// How many voids were sent.
    voids_sent: usize,
    progress: Progress,
    outcome: anyhow::Result<Outcome>,
    stopping: CancellationToken,
}

impl Worker for History {
    async fn work(&mut self, session: Session, backoff: &mut Backoff) -> Result<(), broker::Error> {
        let stopping = self.stopping.clone();
        let Some(publisher) = stopping.run_until_cancelled(Publisher::on(session)).await else {
            return Ok(());
        };
        let mut publisher = publisher?;
        let sending = self.send(&mut publisher, backoff);
        match stopping.run_until_cancelled(sending).await {
            Some(Ok(())) => self.outcome = Ok(Outcome::Done),
            Some(Err(Interrupted::Broker(error))) => return Err(error),
            Some(Err(Interrupted::Database(error))) => {
                self.outcome = Err(error).context("the orders cannot be read");
            }
            None => {}
        }
        publisher.session.close().await;
        Ok(())
    }
}

impl History {
    /// Connects and looks up the range; nothing if it contains no order and no void.
    async fn open(
        config: &Config,
        options: Options,
        stopping: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let pool = database::connect_once(&config.write_model, "write_model").await?;
        let (from_id, to_id) = (options.from_id.unwrap_or(1), options.to_id.unwrap_or(i64::MAX));
        let found = with_connection(&pool, async |connection| {
            let ids = history::ids(connection, from_id, to_id, options.since).await?;
            // An empty range where there is no order.
            let (first_id, last_id) = ids.unwrap_or((i64::MAX, i64::MAX - 1));
            let older_voids = match options.since {
                Some(_) => history::void_events(connection, 1, first_id - 1, options.since).await?,
                None => Vec::new(),
            };
            Ok((first_id, last_id, older_voids))
        });
        let (first_id, last_id, older_voids) = found.await.context("the orders cannot be read")?;
        if last_id < first_id && older_voids.is_empty() {
            return Ok(None);
        }
        let (batch, pause) = pace(options.rate);
        let mut ticks = interval(pause);
        // After a delay it does not catch up, which would exceed the rate.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Some(Self {
            pool,
            exchange: config.queue.exchange.clone(),
            options,
            batch,
            ticks,
            first_id,
            last_id,
            older_voids,
            next_id: first_id,
            sent: 0,
            voids_sent: 0,
            progress: Progress::over(first_id, last_id),
            outcome: Ok(Outcome::NotDone),
            stopping,
        }))
    }

    /// Sends the rest of the orders, each batch followed by its voids. If the broker fails, the last batch has to be sent again. Consumers are
    /// idempotent.
    async fn send(&mut self, publisher: &mut Publisher, backoff: &mut Backoff) -> Result<(), Interrupted> {
        while !self.older_voids.is_empty() {
            self.ticks.tick().await;
            let batch = self
                .older_voids
                .len()
                .min(usize::try_from(self.batch).unwrap_or(1));
            self.publish(publisher, &self.older_voids[..batch]).await?;
            self.older_voids.drain(..batch);
            self.voids_sent += batch;
        }
        loop {
            self.ticks.tick().await;
            let next_id = self.next_id;
            let events = with_connection(&self.pool, async |connection| {
                let orders = history::events(connection, next_id - 1, self.last_id, self.batch).await?;
                let voids = match orders.last() {
                    Some(last) => history::void_events(connection, next_id, last.id, None).await?,
                    None => Vec::new(),
                };
                Ok((orders, voids))
            });
            let (orders, voids) = events.await?;
            let Some(last_id) = orders.last().map(|last| last.id) else {
                return Ok(());
            };
            let (sent, voids_sent) = (orders.len(), voids.len());
            let events: Vec<Event> = orders.into_iter().map(|past| past.event).chain(voids).collect();
            self.publish(publisher, &events).await?;
            backoff.reset();
            self.next_id = last_id + 1;
            self.sent += sent;
            self.voids_sent += voids_sent;
            self.progress.reached(last_id, self.sent);
        }
    }

    async fn publish(&self, publisher: &mut Publisher, events: &[Event]) -> Result<(), broker::Error> {
        let outgoing: Vec<Outgoing> = events
            .iter()
            .map(|event| Outgoing::event(&self.exchange, crate::NAME, event, &Context::new()))
            .collect();
        let results = publisher.publish_all(&outgoing).await?;
        let mut reasons = results.into_iter().filter_map(Result::err);
        if let Some(reason) = reasons.next() {
            let count = 1 + reasons.count();
            return Err(broker::Error::NotConfirmed { count, reason });
        }
        Ok(())
    }

    fn summary(&self) -> String {
        if matches!(self.outcome, Ok(Outcome::Done)) {
            let voids = match self.voids_sent {
                0 => String::new(),
                voids => format!(" and {voids} voids"),
            };
            let (sent, first_id, last_id) = (self.sent, self.first_id, self.last_id);
            if sent == 0 {
                return format!("0 orders{voids} are in the queue again\n");
            }
            return format!("{sent} orders, ids {first_id} to {last_id},{voids} are in the queue again\n");
        }
        if !self.older_voids.is_empty() {
            return "interrupted: start again with the same arguments\n".to_owned();
        }
        let to_id = self.options.to_id.map(|id| format!(" --to-id {id}"));
        let (next_id, to_id) = (self.next_id, to_id.unwrap_or_default());
        format!("interrupted: go on with republish --from-id {next_id}{to_id}\n")
    }
}

/// How many orders to send at once, and how often, for this many in a second.
fn pace(orders_per_s: u32) -> (i64, Duration) {
    const BATCHES_PER_S: u32 = 10;
    let batch = (orders_per_s / BATCHES_PER_S).max(1);
    (
        i64::from(batch),
        Duration::from_secs(u64::from(batch)) / orders_per_s,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_rate() {
        assert_eq!(pace(1), (1, Duration::from_secs(1)));
        assert_eq!(pace(4), (1, Duration::from_millis(250)));
        assert_eq!(pace(1_000), (100, Duration::from_millis(100)));
        assert_eq!(pace(100_000), (10_000, Duration::from_millis(100)));
    }
}
