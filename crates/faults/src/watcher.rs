//! Checks both databases while faults are active.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::Cluster;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::load::Shared;
use crate::violations::Invariant;

const PAUSE: Duration = Duration::from_millis(200);

/// Limit of one query: the database may be away.
const QUERY_LIMIT: Duration = Duration::from_secs(3);

/// A service that is frozen inside a transaction leaves it idle until the server ends it, after 15 s.
const MAX_IDLE_S: i32 = 17;

/// A task that checks the databases until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    task: JoinHandle<()>,
    snapshots: Arc<AtomicU64>,
}

impl Watcher {
    /// Starts the checks.
    #[must_use]
    pub fn start(cluster: &Cluster, shared: &Arc<Shared>) -> Self {
        let snapshots = Arc::new(AtomicU64::new(0));
        let task = watch(
            cluster.write_model().clone(),
            cluster.read_model().clone(),
            Arc::clone(shared),
            Arc::clone(&snapshots),
        );
        Self {
            task: tokio::task::spawn_local(task),
            snapshots,
        }
    }

    /// Stops the checks. Returns the number of snapshots of the total.
    #[must_use]
    pub fn stop(self) -> u64 {
        self.task.abort();
        self.snapshots.load(Ordering::Relaxed)
    }
}

async fn watch(write_model: PgPool, read_model: PgPool, shared: Arc<Shared>, snapshots: Arc<AtomicU64>) {
    loop {
        if let Ok(Ok(snapshot)) = timeout(QUERY_LIMIT, total(&write_model)).await {
            snapshots.fetch_add(1, Ordering::Relaxed);
            if let Some(what) = snapshot {
                shared.violations.add(Invariant::I3, what);
            }
        }
        for (model, pool) in [("write", &write_model), ("read", &read_model)] {
            if let Ok(Ok(count @ 1..)) = timeout(QUERY_LIMIT, idle_in_transaction(pool, MAX_IDLE_S)).await {
                shared.violations.add(
                    Invariant::I10,
                    format!("{count} connections to the {model} model were idle in a transaction for {MAX_IDLE_S} s"),
                );
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Checks the total in one snapshot. Returns a sentence if it is wrong.
///
/// # Errors
/// When the database is away.
pub async fn total(write_model: &PgPool) -> sqlx::Result<Option<String>> {
    let (right, text): (bool, String) = sqlx::query_as(
        "SELECT total = sum AND total BETWEEN 0 AND 100, format('the total is %s, the sum is %s', total, sum)
         FROM (SELECT btc_amount AS total FROM buy_order_running_total) AS total,
              (SELECT coalesce(sum(btc_amount), 0) AS sum
               FROM buy_order AS o WHERE NOT EXISTS (SELECT FROM buy_order_void AS v WHERE v.buy_order_id = o.id)) AS sum",
    )
    .fetch_one(write_model)
    .await?;
    Ok((!right).then_some(text))
}

/// The number of connections that have been idle in a transaction for at least this long.
///
/// # Errors
/// When the database is away.
pub async fn idle_in_transaction(pool: &PgPool, seconds: i32) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'
           AND state_change < clock_timestamp() - make_interval(secs => $1)",
    )
    .bind(seconds)
    .fetch_one(pool)
    .await
}
