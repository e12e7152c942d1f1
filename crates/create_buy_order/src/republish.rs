//! An admin process: tells of the orders of the write model once more, so that a read model that was emptied or lost becomes equal to it
//! again. It reads history and publishes; the outbox has no part in it. Running services go on meanwhile; what the read model has already,
//! it keeps.

mod progress;

use std::time::Duration;

use anyhow::Context as _;
use common::broker::{self, Backoff, Outgoing, Publishing, Verdict};
use common::database::{self, with_connection};
use common::endpoints::{Database, Queue};
use common::env::Env;
use common::service::{Outcome, print};
use opentelemetry::Context;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::db::history::{self, PastEvent};
use progress::Progress;

/// Which orders, and how fast.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Only orders written at this time or later, for example 2026-11-23T15:37:32Z
    #[arg(long, value_name = "RFC3339", value_parser = read_time, conflicts_with_all = ["from_id", "to_id"])]
    since: Option<OffsetDateTime>,
    /// Only orders with this id or a higher one
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    from_id: Option<i64>,
    /// Only orders with this id or a lower one
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    to_id: Option<i64>,
    /// How many to send in a second at most, so that new orders are not held up
    #[arg(long, value_name = "ORDERS_PER_S", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

impl Options {
    /// Whether the range has room for an order.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub fn check(&self) -> Result<(), String> {
        match (self.from_id, self.to_id) {
            (Some(from), Some(to)) if from > to => {
                Err(format!("--from-id {from} is greater than --to-id {to}"))
            }
            _ => Ok(()),
        }
    }
}

fn read_time(text: &str) -> Result<OffsetDateTime, String> {
    let time =
        OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("no time in RFC 3339: {error}"))?;
    // The driver of the database converts it, and panics where that leads beyond the year 9999.
    time.checked_to_offset(UtcOffset::UTC)
        .ok_or_else(|| "beyond the year 9999 in UTC".to_owned())
}

/// What this process reads from the environment.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the orders are.
    pub write_model: Database,
    /// The broker that carries them.
    pub queue: Queue,
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

/// Publishes every order of the range that is there when it begins, and ends when the broker has confirmed the last one. Outages of the
/// broker only delay it. One that was cut short says where to go on.
///
/// # Errors
/// When the write model fails. Beginning anew is safe.
pub async fn run(config: Config, options: Options, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    let connecting = database::connect_once(&config.write_model, "write_model");
    let Some(pool) = stopping.run_until_cancelled(connecting).await else {
        return Ok(Outcome::NotDone);
    };
    let mut history = History {
        pool: pool?,
        options,
        publisher: Publisher {
            backoff: Backoff::starting_at(config.queue.connect_retry),
            queue: config.queue,
            publishing: None,
        },
        next_id: None,
    };
    let outcome = match stopping.run_until_cancelled(history.send()).await {
        Some(Ok(())) => Ok(Outcome::Done),
        Some(Err(error)) => Err(error),
        None => Ok(Outcome::NotDone),
    };
    if let Some(publishing) = history.publisher.publishing.take() {
        publishing.session.close().await;
    }
    if !matches!(outcome, Ok(Outcome::Done)) {
        print(&history.how_to_go_on()).await?;
    }
    outcome
}

/// Orders on their way.
struct History {
    pool: database::Pool,
    options: Options,
    publisher: Publisher,
    /// The first id that the broker has not confirmed, once it is known.
    next_id: Option<i64>,
}

impl History {
    async fn send(&mut self) -> anyhow::Result<()> {
        let (from_id, to_id) = (
            self.options.from_id.unwrap_or(1),
            self.options.to_id.unwrap_or(i64::MAX),
        );
        let since = self.options.since;
        let ids = with_connection(&self.pool, async |connection| {
            history::ids(connection, from_id, to_id, since).await
        });
        let Some((first_id, last_id)) = ids.await.context("the orders cannot be read")? else {
            print("no order is in this range: there is nothing to send\n").await?;
            return Ok(());
        };
        self.next_id = Some(first_id);
        let (batch, pause) = pace(self.options.rate);
        let mut ticks = interval(pause);
        // After an outage of the broker history does not come faster than it may.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Progress::over(first_id, last_id);
        let (mut after, mut sent) = (first_id - 1, 0);
        loop {
            ticks.tick().await;
            let events = with_connection(&self.pool, async |connection| {
                history::events(connection, after, last_id, batch).await
            });
            let events = events.await.context("the orders cannot be read")?;
            let Some(last) = events.last() else {
                break;
            };
            self.publisher.publish(&events).await;
            after = last.id;
            self.next_id = Some(after + 1);
            sent += events.len();
            progress.reached(after, sent);
        }
        progress.finish();
        print(&format!(
            "{sent} orders, ids {first_id} to {last_id}, are in the queue again\n"
        ))
        .await?;
        Ok(())
    }

    fn how_to_go_on(&self) -> String {
        let to_id = self
            .options
            .to_id
            .map(|id| format!(" --to-id {id}"))
            .unwrap_or_default();
        match self.next_id {
            Some(next_id) => format!("interrupted: go on with republish --from-id {next_id}{to_id}\n"),
            None => "interrupted: nothing was sent\n".to_owned(),
        }
    }
}

/// The broker, through its outages.
struct Publisher {
    queue: Queue,
    backoff: Backoff,
    publishing: Option<Publishing>,
}

impl Publisher {
    /// Until the broker has confirmed every one. Where it fails, all of them are sent once more, which consumers bear.
    async fn publish(&mut self, events: &[PastEvent]) {
        let messages: Vec<Outgoing> = events
            .iter()
            .map(|past| Outgoing::event(&self.queue.exchange, &past.event, &Context::new()))
            .collect();
        while let Err(error) = self.try_to_publish(&messages).await {
            Publishing::report_failure(&self.queue, &error);
            self.publishing = None;
            self.backoff.pause(&CancellationToken::new()).await;
        }
        self.backoff.reset();
    }

    async fn try_to_publish(&mut self, messages: &[Outgoing]) -> Result<(), broker::Error> {
        let publishing = match &mut self.publishing {
            Some(publishing) => publishing,
            none => none.insert(Publishing::open(&self.queue, "create_buy_order republish").await?),
        };
        let verdicts = publishing.publisher.publish_all(messages).await?;
        let mut reasons = verdicts.into_iter().filter_map(|verdict| match verdict {
            Verdict::Confirmed => None,
            Verdict::NotConfirmed(reason) => Some(reason),
        });
        match reasons.next() {
            None => Ok(()),
            Some(reason) => Err(broker::Error::NotConfirmed {
                count: 1 + reasons.count(),
                reason,
            }),
        }
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
