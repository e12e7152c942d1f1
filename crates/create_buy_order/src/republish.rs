//! An admin process: sends orders of the write model through the outbox once more, so that a read model that was emptied or lost becomes
//! equal to it again. Running services go on meanwhile; what the read model has already, it keeps.

mod progress;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::database::{self, with_connection};
use common::endpoints::{Database, Queue};
use common::env::Env;
use common::service::{Outcome, print};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::db::{history, outbox};
use crate::outbox::relay;
use progress::Progress;

/// Events that wait at most: history must not stand in the way of new orders for long.
const MOST_WAITING: i64 = 2_000;

const POLL: Duration = Duration::from_millis(100);

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
    /// The broker that the outbox is relayed to.
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

/// Sends every order of the range that is there when it begins, and ends when the broker has confirmed the last one. Relays the outbox
/// itself too, so it works while the service is stopped. One that was cut short says where to go on.
///
/// # Errors
/// When the write model fails. Beginning anew is safe.
pub async fn run(config: Config, options: Options, stopping: CancellationToken) -> anyhow::Result<Outcome> {
    let connecting = database::connect_once(&config.write_model, "write_model");
    let Some(pool) = stopping.run_until_cancelled(connecting).await else {
        return Ok(Outcome::NotDone);
    };
    let pool = pool?;
    let outbox_grew = Arc::new(Notify::new());
    let relay_stops = CancellationToken::new();
    let relay = tokio::spawn(relay(
        pool.clone(),
        config.queue,
        Arc::clone(&outbox_grew),
        relay_stops.clone(),
    ));
    let mut history = History {
        pool: &pool,
        options,
        outbox_grew: &outbox_grew,
        next_id: None,
    };
    let sent = stopping.run_until_cancelled(history.send()).await;
    // In order: what the relay has claimed is published, or given back.
    relay_stops.cancel();
    let relayed = relay.await;
    let outcome = match sent {
        Some(Ok(())) => Ok(Outcome::Done),
        Some(Err(error)) => Err(error),
        None => Ok(Outcome::NotDone),
    };
    if !matches!(outcome, Ok(Outcome::Done)) {
        print(&history.how_to_go_on()).await?;
    }
    relayed.context("the relay panicked")??;
    outcome
}

/// Orders on their way.
struct History<'a> {
    pool: &'a database::Pool,
    options: Options,
    outbox_grew: &'a Notify,
    /// The first id that is not in the outbox again, once it is known.
    next_id: Option<i64>,
}

impl History<'_> {
    async fn send(&mut self) -> anyhow::Result<()> {
        let (from_id, to_id) = (
            self.options.from_id.unwrap_or(1),
            self.options.to_id.unwrap_or(i64::MAX),
        );
        let since = self.options.since;
        let ids = with_connection(self.pool, async |connection| {
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
        let (mut after, mut last_event, mut sent) = (first_id - 1, 0, 0);
        loop {
            ticks.tick().await;
            self.wait_until_relayed(last_event, MOST_WAITING).await?;
            let added = with_connection(self.pool, async |connection| {
                outbox::add_again(connection, after, last_id, batch).await
            });
            let Some(added) = added.await.context("orders could not be sent again")? else {
                break;
            };
            self.outbox_grew.notify_one();
            (after, last_event) = (added.last_order, added.last_event);
            self.next_id = Some(after + 1);
            sent += added.orders;
            progress.reached(after, sent);
        }
        self.wait_until_relayed(last_event, 0).await?;
        progress.finish();
        print(&format!(
            "{sent} orders, ids {first_id} to {last_id}, are in the queue again\n"
        ))
        .await?;
        Ok(())
    }

    /// Waits until no more than `waiting` of the events up to `last_event` are left.
    async fn wait_until_relayed(&self, last_event: i64, waiting: i64) -> anyhow::Result<()> {
        loop {
            let left = with_connection(self.pool, async |connection| {
                outbox::count_through(connection, last_event).await
            });
            if left.await.context("the outbox cannot be counted")? <= waiting {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
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
