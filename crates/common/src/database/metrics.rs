//! Metrics of the pools. The label is the name of the database in PostgreSQL.

use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::time::Instant;

use super::Pool;
use crate::metrics::{GaugeVec, HistogramVec, IntCounterVec, LATENCIES, counters, histograms, read_gauges};

static ACQUIRE_DURATIONS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histograms(
        "database_pool_acquire_duration_seconds",
        "Time that a caller waited for a connection of the pool, whether it got one or not.",
        &["database"],
        &LATENCIES,
    )
});

static ACQUIRE_TIMEOUTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "database_pool_acquire_timeouts_total",
        "Callers that got no connection in time: all were in use, or the database was away.",
        &["database"],
    )
});

static POOLS: Mutex<Vec<Pool>> = Mutex::new(Vec::new());
static CONNECTIONS: Once = Once::new();

/// Adds a pool to the metrics of this process.
pub(super) fn register(pool: &Pool) {
    // Shows the counter as 0 before the first timeout.
    ACQUIRE_TIMEOUTS.with_label_values(&[name(pool)]);
    pools().push(pool.clone());
    CONNECTIONS.call_once(|| {
        read_gauges(
            "database_pool_connections",
            "Connections of the pool by state; max is the limit.",
            &["database", "state"],
            set_connections,
        );
    });
}

fn pools() -> MutexGuard<'static, Vec<Pool>> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Several pools of one database are one sum.
fn set_connections(gauges: &GaugeVec) {
    gauges.reset();
    for pool in pools().iter() {
        let status = pool.connections.status();
        let in_use = status.size.saturating_sub(status.available);
        for (state, count) in [
            ("idle", status.available),
            ("in_use", in_use),
            ("max", status.max_size),
        ] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            gauges.with_label_values(&[name(pool), state]).add(count.into());
        }
    }
}

pub(super) fn count_acquire(pool: &Pool, begun: Instant, succeeded: bool) {
    let database = [name(pool)];
    let durations = ACQUIRE_DURATIONS.with_label_values(&database);
    durations.observe(begun.elapsed().as_secs_f64());
    if !succeeded {
        ACQUIRE_TIMEOUTS.with_label_values(&database).inc();
    }
}

fn name(pool: &Pool) -> &str {
    &pool.endpoint().name
}
