//! An admin process: compares the read model with the checksums of the write model, and reports the differences.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use common::database;
use common::endpoints::Database;
use common::range_checksum::{End, Line, RangeChecksum};
use common::service::{Outcome, print};
use sqlx::PgConnection;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio_util::sync::CancellationToken;

use crate::db::{self, ExtraRows};

const POLL: Duration = Duration::from_millis(200);

/// How long to wait.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How long orders may still be under way before their range is called different
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
}

/// Compares, and prints each range that differs, and a summary. [`Outcome::Done`] means equal.
///
/// # Errors
/// When the read model is away, or standard input is not the complete output of `create_buy_order checksums`.
pub async fn run(
    read_model: Database,
    options: Options,
    stopping: CancellationToken,
) -> anyhow::Result<Outcome> {
    let work = async {
        let pool = database::connect_once(&read_model, "read_model").await?;
        compare(&pool, Duration::from_secs(options.wait)).await
    };
    stopping
        .run_until_cancelled(work)
        .await
        .unwrap_or(Ok(Outcome::NotDone))
}

/// A range that differs between the models.
struct Difference {
    write_model: RangeChecksum,
    read_model: RangeChecksum,
}

impl Difference {
    /// Whether the read model has orders that the write model does not have. Missing orders may still be in flight.
    fn has_extra_orders(&self) -> bool {
        let (write_model, read_model) = (&self.write_model, &self.read_model);
        read_model.orders > write_model.orders
            || read_model.orders == write_model.orders && read_model.identities != write_model.identities
    }
}

async fn compare(pool: &database::Pool, wait: Duration) -> anyhow::Result<Outcome> {
    let (first_id, end, mut differences) = read_checksums(pool).await?;
    let deadline = Instant::now() + wait;
    while !differences.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
        let mut remaining = Vec::with_capacity(differences.len());
        for known in differences {
            if Instant::now() < deadline {
                remaining.extend(difference(pool, known.write_model).await?);
            } else {
                remaining.push(known);
            }
        }
        differences = remaining;
    }
    let extra_rows = database::read(pool, || {
        async |connection: &mut PgConnection| {
            db::extra_rows(connection, first_id, end.last_id, end.as_of_epoch_us).await
        }
    })
    .await
    .context("the read model cannot be read")?;

    print(&report(&differences, &extra_rows, &end)).await?;
    if differences.is_empty() && extra_rows.older == 0 {
        Ok(Outcome::Done)
    } else {
        Ok(Outcome::NotDone)
    }
}

/// Reads the checksums of the write model from standard input, and compares each as it arrives. Returns the first id, the last line, and the
/// ranges that differ.
async fn read_checksums(pool: &database::Pool) -> anyhow::Result<(i64, End, Vec<Difference>)> {
    let mut lines = BufReader::new(stdin()).lines();
    let (mut first_id, mut next_id) = (None, None);
    let (mut ranges, mut orders) = (0, 0);
    let mut differences = Vec::new();
    while let Some(text) = lines.next_line().await.context("standard input cannot be read")? {
        let number = ranges + 1;
        let line = serde_json::from_str(&text).with_context(|| {
            format!("line {number} of standard input is not of `create_buy_order checksums`")
        })?;
        match line {
            Line::Range(range) => {
                ensure!(
                    range.from_id <= range.to_id && next_id.is_none_or(|id| id == range.from_id),
                    "line {number} of standard input does not follow the one before"
                );
                first_id.get_or_insert(range.from_id);
                next_id = range.to_id.checked_add(1);
                (ranges, orders) = (number, orders + range.orders);
                differences.extend(difference(pool, range).await?);
            }
            Line::End(end) => {
                ensure!(
                    (end.ranges, end.orders) == (ranges, orders),
                    "the checksums have {} ranges, of which {ranges} came",
                    end.ranges
                );
                ensure!(
                    lines.next_line().await?.is_none(),
                    "standard input goes on after the end of the checksums"
                );
                return Ok((first_id.unwrap_or(1), end, differences));
            }
        }
    }
    bail!("the checksums end too early, after {ranges} ranges: did `create_buy_order checksums` fail?")
}

async fn difference(pool: &database::Pool, write_model: RangeChecksum) -> anyhow::Result<Option<Difference>> {
    let RangeChecksum {
        from_id,
        to_id,
        voids_to_epoch_us,
        ..
    } = write_model;
    let read_model = database::read(pool, || {
        async |connection: &mut PgConnection| {
            db::checksum(connection, from_id, to_id, voids_to_epoch_us).await
        }
    })
    .await
    .with_context(|| format!("ids {from_id} to {to_id} of the read model cannot be read"))?;
    Ok((read_model != write_model).then_some(Difference {
        write_model,
        read_model,
    }))
}

fn report(differences: &[Difference], extra_rows: &ExtraRows, end: &End) -> String {
    let mut lines: Vec<String> = differences.iter().map(describe).collect();
    if extra_rows.older > 0 {
        let ids: Vec<String> = extra_rows.first_ids.iter().map(i64::to_string).collect();
        let more = if extra_rows.older > i64::try_from(ids.len()).unwrap_or(i64::MAX) {
            ", …"
        } else {
            ""
        };
        lines.push(format!(
            "outside of all ranges: the read model has {} rows that the write model does not have, ids {}{more}",
            extra_rows.older,
            ids.join(", ")
        ));
    }
    if extra_rows.younger > 0 {
        lines.push(format!(
            "not compared: {} rows younger than the checksums",
            extra_rows.younger
        ));
    }
    let (orders, ranges) = (end.orders, end.ranges);
    lines.push(if differences.is_empty() && extra_rows.older == 0 {
        format!("equal: {orders} orders in {ranges} ranges")
    } else {
        format!(
            "different: {} of {ranges} ranges, and {} rows outside of them",
            differences.len(),
            extra_rows.older
        )
    });
    lines.extend(repair_steps(differences, extra_rows, end));
    lines.join("\n") + "\n"
}

/// What to do when the read model has orders that the write model does not have: the write model was restored from a backup that is older than
/// the read model. It then uses the ids of those orders again, and each new order becomes a dead letter.
fn repair_steps(differences: &[Difference], extra_rows: &ExtraRows, end: &End) -> Option<String> {
    let changed_from = differences
        .iter()
        .filter(|difference| difference.has_extra_orders());
    let beyond = (extra_rows.beyond > 0).then(|| end.last_id.saturating_add(1));
    let from_id = changed_from
        .map(|difference| difference.write_model.from_id)
        .chain(beyond)
        .min()?;
    let last_id = end.last_id.max(extra_rows.last_id);
    Some(format!(
        "from id {from_id} on the read model has orders that the write model does not have: was that restored from an older backup? To mend it,\n\
         as docs/operations.md says under \"The write model was restored from an older backup\": stop create_buy_order, wait until the queue is\n\
         empty, keep what clients were told of, and start create_buy_order after the third line:\n  \
         scripts/psql.sh read_model \"SELECT * FROM buy_order_read_model WHERE id >= {from_id}\" >lost_orders.txt\n  \
         scripts/psql.sh write_model \"SELECT setval(pg_get_serial_sequence('buy_order', 'id'), \
         greatest({last_id}, nextval(pg_get_serial_sequence('buy_order', 'id'))))\"\n  \
         scripts/psql.sh read_model \"DELETE FROM buy_order_read_model WHERE id >= {from_id}; \
         DELETE FROM buy_order_void_read_model WHERE id >= {from_id}\"\n  \
         scripts/republish.sh --from-id {from_id} --to-id {last_id}"
    ))
}

fn describe(difference: &Difference) -> String {
    let (from_id, to_id) = (difference.write_model.from_id, difference.write_model.to_id);
    let (orders, found) = (difference.write_model.orders, difference.read_model.orders);
    if found == orders {
        format!(
            "ids {from_id} to {to_id}: {orders} orders in both models, but not the same in every field, or voided in only one"
        )
    } else {
        format!("ids {from_id} to {to_id}: {orders} orders in the write model, {found} in the read model")
    }
}
