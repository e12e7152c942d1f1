//! Fills databases with millions of orders, as if the services had written them, but much faster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, DatabaseAddress};
use rustix::fs::statvfs;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

/// Disk space of an order, in all tables and indexes of both models. A round number above the measured value.
const BYTES_PER_ORDER: u64 = 800;
/// Its space in the WAL of both databases, until the WAL has its maximum size.
const LOG_BYTES_PER_ORDER: u64 = 2_400;
const MAX_LOG_BYTES: u64 = 8 << 30;
/// Disk space of empty servers.
const BYTES_BESIDES: u64 = 1 << 30;

/// The orders that are added.
#[derive(Debug, Clone, Copy)]
struct Range {
    after: i64,
    through: i64,
    /// The time of an order with the id 0. Each order is one µs younger than the one before, and the last one is not in the future.
    zero_at: OffsetDateTime,
    /// The distance between keys. They are spread evenly, like random ones, but ascend, so that the index is built quickly. New random keys
    /// then fall anywhere among them.
    stride: i64,
}

/// Adds orders to both models until they hold this many. The amounts are the smallest possible, so that the total stays far below the cap. No
/// order may be in flight.
///
/// # Errors
/// When the disk is too small, or a database refuses.
pub async fn fill(cluster: &Cluster, orders: i64) -> anyhow::Result<()> {
    let write_model = &cluster.addresses().write_model;
    let read_model = &cluster.addresses().read_model;
    let (stored, last): (i64, i64) = sqlx::query_as("SELECT count(*), coalesce(max(id), 0) FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    let missing = orders - stored;
    if missing <= 0 {
        return Ok(());
    }
    ensure_room(u64::try_from(missing)?)?;
    let began = Instant::now();
    let range = Range {
        after: last,
        through: last + missing,
        zero_at: OffsetDateTime::now_utc() - Duration::from_micros(u64::try_from(last + missing)?),
        stride: (1 << 48) / missing,
    };
    tokio::try_join!(
        insert(write_model, include_str!("history/orders.sql"), range),
        insert(read_model, include_str!("history/read_model.sql"), range),
    )?;
    update_total_and_sequence(write_model, range).await?;
    vacuum_and_checkpoint(cluster).await?;
    println!(
        "  {missing} orders were added to both models in {} s",
        began.elapsed().as_secs()
    );
    Ok(())
}

/// Runs in both databases what would otherwise disturb a measurement: vacuum, analyze and a checkpoint. Without statistics a small table is
/// read completely for each batch, until autovacuum runs after up to a minute.
///
/// # Errors
/// When a database is away.
pub async fn vacuum_and_checkpoint(cluster: &Cluster) -> anyhow::Result<()> {
    let addresses = cluster.addresses();
    tokio::try_join!(maintain(&addresses.write_model), maintain(&addresses.read_model))?;
    Ok(())
}

/// The size of the database on disk, in bytes.
///
/// # Errors
/// When the database is away.
pub async fn size(pool: &sqlx::PgPool) -> anyhow::Result<i64> {
    let size = sqlx::query_scalar("SELECT pg_database_size(current_database())");
    Ok(size.fetch_one(pool).await?)
}

fn ensure_room(orders: u64) -> anyhow::Result<()> {
    let folder = std::env::temp_dir();
    let disk = statvfs(&folder).with_context(|| format!("could not look at {}", folder.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    let log = (orders * LOG_BYTES_PER_ORDER).min(MAX_LOG_BYTES);
    let needed = orders * BYTES_PER_ORDER + log + BYTES_BESIDES;
    ensure!(
        free >= needed,
        "{orders} orders need {} GB in {}, and {} GB are free there: set TMPDIR to a folder on a larger disk",
        needed >> 30,
        folder.display(),
        free >> 30
    );
    Ok(())
}

async fn insert(database: &DatabaseAddress, statement: &'static str, range: Range) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&database.options()).await?;
    // Disables the checks of foreign keys, which would take longer than everything else. They hold by construction.
    sqlx::query("SET session_replication_role = replica")
        .execute(&mut connection)
        .await?;
    sqlx::query(statement)
        .bind(range.after)
        .bind(range.through)
        .bind(range.zero_at)
        .bind(range.stride)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Adds the orders to the running total and advances the sequence of ids, as the service does.
async fn update_total_and_sequence(database: &DatabaseAddress, range: Range) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&database.options()).await?;
    sqlx::query(
        "UPDATE buy_order_running_total
            SET btc_amount = btc_amount + (SELECT sum(btc_amount) FROM buy_order WHERE id > $1 AND id <= $2)",
    )
    .bind(range.after)
    .bind(range.through)
    .execute(&mut connection)
    .await?;
    sqlx::query("SELECT setval(pg_get_serial_sequence('buy_order', 'id'), $1)")
        .bind(range.through)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

async fn maintain(database: &DatabaseAddress) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&database.options()).await?;
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
