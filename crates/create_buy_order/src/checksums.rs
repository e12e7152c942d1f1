//! An admin process: prints checksums of the write model, range by range, for `read_model_sync verify`.

use anyhow::Context as _;
use common::database::{self, with_connection};
use common::endpoints::Database;
use common::range_checksum::{End, Line};
use common::service::{Outcome, print};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::db::history;

/// How to divide the orders.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Orders in one range: the smaller, the closer `verify` points at what differs
    #[arg(long, value_name = "ORDERS", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    range_size: i64,
}

/// Prints a line for each range, then [`End`]. Leaves out orders that are accepted meanwhile.
///
/// # Errors
/// When the write model fails, or standard output is closed.
pub async fn run(
    write_model: Database,
    options: Options,
    stopping: CancellationToken,
) -> anyhow::Result<Outcome> {
    let work = async {
        let pool = database::connect_once(&write_model, "write_model").await?;
        print_all(&pool, options.range_size).await
    };
    match stopping.run_until_cancelled(work).await {
        Some(printed) => printed.map(|()| Outcome::Done),
        None => Ok(Outcome::NotDone),
    }
}

async fn print_all(pool: &database::Pool, range_size: i64) -> anyhow::Result<()> {
    let now = with_connection(pool, history::end)
        .await
        .context("the write model cannot be read")?;
    let mut end = End {
        ranges: 0,
        orders: 0,
        last_id: now.last_id,
        as_of_epoch_us: now.as_of_epoch_us,
    };
    let mut after = now.first_id - 1;
    while after < now.last_id {
        let range = database::read(pool, || {
            async |connection: &mut PgConnection| {
                history::next_range(connection, after, now, range_size).await
            }
        })
        .await
        .with_context(|| format!("the orders after id {after} cannot be read"))?;
        (after, end.ranges, end.orders) = (range.to_id, end.ranges + 1, end.orders + range.orders);
        print_line(&Line::Range(range)).await?;
    }
    print_line(&Line::End(end)).await
}

async fn print_line(line: &Line) -> anyhow::Result<()> {
    Ok(print(&(serde_json::to_string(line)? + "\n")).await?)
}
