//! Metrics of the pools. The label is the name of the database in PostgreSQL.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Pool;
use crate::metrics::{GaugeVec, HistogramVec, IntCounterVec, LATENCIES, counters, histograms, read_gauges};

static ACQUIRE: LazyLock<Acquire> = LazyLock::new(|| Acquire {
    durations: histograms(
        "database_pool_acquire_duration_seconds",
        "Time that a caller waited for a connection of the pool, whether it got one or not.",
        &["database"],
        &LATENCIES,
    ),
    timeouts: counters(
        "database_pool_acquire_timeouts_total",
        "Callers that got no connection in time: all were in use, or the database was away.",
        &["database"],
    ),
});

struct Acquire {
    durations: HistogramVec,
    timeouts: IntCounterVec,
}

static POOLS: Mutex<Vec<Pool>> = Mutex::new(Vec::new());

static CONNECTIONS: LazyLock<()> = LazyLock::new(|| {
    read_gauges(
        "database_pool_connections",
        "Connections of the pool by state; max is the limit.",
        &["database", "state"],
        set_connections,
    );
});

/// Adds a pool to the metrics of this process.
pub(super) fn register(pool: &Pool) {
    // Shows the counter as 0 before the first timeout.
    ACQUIRE.timeouts.with_label_values(&[name(pool)]);
    pools().push(pool.clone());
    LazyLock::force(&CONNECTIONS);
}

fn pools() -> MutexGuard<'static, Vec<Pool>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Several pools of one database are one sum.
fn set_connections(gauges: &GaugeVec) {
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for pool in pools().iter() {
        let status = pool.status();
        let in_use = status.size.saturating_sub(status.available);
        for (state, count) in [
            ("idle", status.available),
            ("in_use", in_use),
            ("max", status.max_size),
        ] {
            let sum = counts.entry((name(pool).to_owned(), state)).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    for ((database, state), count) in counts {
        gauges
            .with_label_values(&[database.as_str(), state])
            .set(u32::try_from(count).unwrap_or(u32::MAX).into());
    }
}

pub(super) async fn time_acquire<T>(
    pool: &Pool,
    acquire: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    let begun = Instant::now();
    let acquired = acquire.await;
    let database = [name(pool)];
    let duration = ACQUIRE.durations.with_label_values(&database);
    duration.observe(begun.elapsed().as_secs_f64());
    if acquired.is_err() {
        ACQUIRE.timeouts.with_label_values(&database).inc();
    }
    acquired
}

fn name(pool: &Pool) -> &str {
    &pool.endpoint().name
}
