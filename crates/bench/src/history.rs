//! Orders of the past: databases that hold millions of them, as if the services had written them, without the hours that would take.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, DatabaseAddress};
use rustix::fs::statvfs;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

/// What an order takes on the disk, in all tables and indexes of both models. A round number above what was measured.
const BYTES_PER_ORDER: u64 = 800;
/// What it takes in the logs (WAL) of both databases, until they are as large as they may be.
const LOG_BYTES_PER_ORDER: u64 = 2_400;
const MOST_LOG_BYTES: u64 = 8 << 30;
/// What empty servers take.
const BYTES_BESIDES: u64 = 1 << 30;

/// The orders that are added.
#[derive(Debug, Clone, Copy)]
struct Range {
    after: i64,
    through: i64,
    /// When the order with the id 0 would have been written. Each is one µs younger than the one before, the last is not yet to come.
    zero_at: OffsetDateTime,
    /// The keys of a range are spread evenly, as random ones are, but ascend, so that an index takes them quickly: new ones fall anywhere among
    /// them, as among random ones.
    stride: i64,
}

/// Fills both models until they hold this many orders; nothing happens where they do. The smallest amounts there are, so that the book
/// stays far from full. No order may be on its way.
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
    count_in(write_model, range).await?;
    settle(cluster).await?;
    println!(
        "  {missing} orders were added to both models in {} s",
        began.elapsed().as_secs()
    );
    Ok(())
}

/// Does in both databases what would otherwise come in the middle of a measurement: vacuum, statistics, and the writing of what was changed
/// in memory. Without statistics a small table is read from end to end for each batch, until autovacuum comes by in its minute.
///
/// # Errors
/// When a database is away.
pub async fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    let addresses = cluster.addresses();
    tokio::try_join!(
        settle_database(&addresses.write_model),
        settle_database(&addresses.read_model)
    )?;
    Ok(())
}

/// Bytes that the database takes on the disk.
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
    let log = (orders * LOG_BYTES_PER_ORDER).min(MOST_LOG_BYTES);
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
    // Foreign keys are looked up row by row otherwise, which takes longer than all else; these hold by construction.
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

/// What the service does with each order: counts it, and draws its id.
async fn count_in(database: &DatabaseAddress, range: Range) -> anyhow::Result<()> {
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

async fn settle_database(database: &DatabaseAddress) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&database.options()).await?;
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
