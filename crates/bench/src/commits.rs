//! When orders were committed in the write model and in the read model, as recorded by `track_commit_timestamp`. Both servers use the clock
//! of the same machine.
//!
//! A server reads the clock just before it writes the commit to its disk. So the lag includes the disk write of the write model, but not that
//! of the read model.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, wait_until};
use sqlx::PgPool;
use uuid::Uuid;

use crate::figures::figure;

/// The parameter that both instances need, with its value.
pub const PARAMETER: (&str, &str) = ("track_commit_timestamp", "on");

const WRITTEN: &str = "SELECT external_id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM buy_order WHERE id > $1";
const PROJECTED: &str = "SELECT external_id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM buy_order_read_model WHERE id > $1";

/// The commits of some orders, in µs of the wall clock.
#[derive(Debug)]
pub struct Commits(Vec<Commit>);

#[derive(Debug, Clone, Copy)]
struct Commit {
    written_us: i64,
    projected_us: Option<i64>,
}

/// How long the projection may take to catch up with a load.
const PROJECTED_WITHIN: Duration = Duration::from_secs(120);

/// Waits until every order is relayed and projected, so that the next measurement has the machine for itself.
///
/// # Errors
/// When it takes longer than any backlog of a benchmark can take.
pub async fn wait_until_projected(cluster: &Cluster) -> anyhow::Result<()> {
    // The comment marks statements that `spent` does not count.
    wait_until("every order is projected", PROJECTED_WITHIN, async || {
        let relayed: bool = sqlx::query_scalar("SELECT /* bench */ NOT EXISTS (SELECT FROM outbox)")
            .fetch_one(cluster.write_model())
            .await?;
        let accepted: Option<i64> = sqlx::query_scalar("SELECT /* bench */ max(id) FROM buy_order")
            .fetch_one(cluster.write_model())
            .await?;
        let projected: Option<i64> =
            sqlx::query_scalar("SELECT /* bench */ max(id) FROM buy_order_read_model")
                .fetch_one(cluster.read_model())
                .await?;
        Ok(relayed && accepted == projected)
    })
    .await
}

/// The id of the newest order: see [`Commits::since`].
///
/// # Errors
/// When the write model does not answer.
pub async fn newest(cluster: &Cluster) -> anyhow::Result<i64> {
    let newest = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM buy_order");
    Ok(newest.fetch_one(cluster.write_model()).await?)
}

/// The number of orders with an id above this.
///
/// # Errors
/// When the write model does not answer.
pub async fn orders_since(cluster: &Cluster, id: i64) -> anyhow::Result<u64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM buy_order WHERE id > $1").bind(id);
    let count: i64 = count.fetch_one(cluster.write_model()).await?;
    Ok(u64::try_from(count)?)
}

/// The time of the write model's server, in µs.
///
/// # Errors
/// When it does not answer.
pub async fn now_us(cluster: &Cluster) -> anyhow::Result<i64> {
    let now = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    Ok(now.fetch_one(cluster.write_model()).await?)
}

impl Commits {
    /// The commits of the orders with an id above this.
    ///
    /// # Errors
    /// When a server does not answer, or does not record commit times.
    pub async fn since(cluster: &Cluster, id: i64) -> anyhow::Result<Self> {
        let written = times(cluster.write_model(), WRITTEN, id).await?;
        let projected: HashMap<Uuid, i64> = times(cluster.read_model(), PROJECTED, id)
            .await?
            .into_iter()
            .collect();
        let commit = |(external_id, written_us)| Commit {
            written_us,
            projected_us: projected.get(&external_id).copied(),
        };
        Ok(Self(written.into_iter().map(commit).collect()))
    }

    /// The number of orders.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.0.len()
    }

    /// The number of orders that are not in the read model.
    #[must_use]
    pub fn not_projected(&self) -> usize {
        self.0
            .iter()
            .filter(|commit| commit.projected_us.is_none())
            .count()
    }

    /// Orders written per second, within `duration` from the first of them.
    ///
    /// # Errors
    /// When there are none.
    pub fn accepted_per_second(&self, duration: Duration) -> anyhow::Result<f64> {
        let end_us = self.first_us()? + i64::try_from(duration.as_micros())?;
        let accepted = self.0.iter().filter(|commit| commit.written_us < end_us);
        Ok(per_second(accepted.count(), duration))
    }

    /// Orders projected per second, within the same time.
    ///
    /// # Errors
    /// As there.
    pub fn projected_per_second(&self, duration: Duration) -> anyhow::Result<f64> {
        let end_us = self.first_us()? + i64::try_from(duration.as_micros())?;
        let in_time = |commit: &&Commit| commit.projected_us.is_some_and(|at_us| at_us < end_us);
        Ok(per_second(self.0.iter().filter(in_time).count(), duration))
    }

    /// Times between the two commits of the projected orders, in µs, sorted.
    ///
    /// # Errors
    /// When an order was projected before it was written, because the clock was set.
    pub fn lags_us(&self) -> anyhow::Result<Vec<u32>> {
        let lag = |commit: &Commit| {
            let lag = commit.projected_us? - commit.written_us;
            Some(u32::try_from(lag).with_context(|| format!("a lag of {lag} µs")))
        };
        let mut lags = self
            .0
            .iter()
            .filter_map(lag)
            .collect::<anyhow::Result<Vec<_>>>()?;
        lags.sort_unstable();
        Ok(lags)
    }

    /// When the last order was written, in µs.
    ///
    /// # Errors
    /// When there are none.
    pub fn last_us(&self) -> anyhow::Result<i64> {
        let last = self.0.iter().map(|commit| commit.written_us).max();
        last.context("no order was accepted")
    }

    /// The number of orders that were not projected yet when the last one was written.
    ///
    /// # Errors
    /// When there are none.
    pub fn behind_at_the_end(&self) -> anyhow::Result<usize> {
        let end_us = self.last_us()?;
        let later = |commit: &&Commit| commit.projected_us.is_none_or(|at_us| at_us > end_us);
        Ok(self.0.iter().filter(later).count())
    }

    fn first_us(&self) -> anyhow::Result<i64> {
        let first = self.0.iter().map(|commit| commit.written_us).min();
        first.context("no order was accepted")
    }
}

fn per_second(count: usize, duration: Duration) -> f64 {
    figure(count as u64) / duration.as_secs_f64()
}

async fn times(model: &PgPool, statement: &'static str, id: i64) -> anyhow::Result<Vec<(Uuid, i64)>> {
    let times = sqlx::query_as(statement).bind(id).fetch_all(model);
    times.await.context("could not read when orders were committed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits() -> Commits {
        let commit = |written_us, projected_us| Commit {
            written_us,
            projected_us,
        };
        Commits(vec![
            commit(5_000_000, Some(5_100_000)),
            commit(5_500_000, Some(6_500_000)),
            commit(6_000_000, None),
        ])
    }

    #[test]
    fn a_window_begins_with_the_first_order_that_was_written() -> anyhow::Result<()> {
        let second = Duration::from_secs(1);
        let rates = [
            commits().accepted_per_second(second)?,
            commits().projected_per_second(second)?,
        ];
        assert_eq!(rates.map(|rate| format!("{rate}")), ["2", "1"]);
        Ok(())
    }

    #[test]
    fn lags_are_of_orders_that_are_projected() -> anyhow::Result<()> {
        assert_eq!(commits().lags_us()?, [100_000, 1_000_000]);
        assert_eq!(
            (commits().not_projected(), commits().behind_at_the_end()?),
            (1, 2)
        );
        Ok(())
    }
}
