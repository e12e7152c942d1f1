//! When orders were committed, in the write model and in the read model, as both servers note it down by `track_commit_timestamp`. Both
//! read the clock of the same machine.
//!
//! A server reads it just before it writes the commit to its disk, on both sides: the lag includes that the write model waits for its disk,
//! and not that the read model does.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use cluster::Cluster;
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

/// The newest order so far: see [`Commits::since`].
///
/// # Errors
/// When the write model does not answer.
pub async fn newest(cluster: &Cluster) -> anyhow::Result<i64> {
    let newest = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM buy_order");
    Ok(newest.fetch_one(cluster.write_model()).await?)
}

/// How many orders there are with an id above this.
///
/// # Errors
/// When the write model does not answer.
pub async fn orders_since(cluster: &Cluster, id: i64) -> anyhow::Result<u64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM buy_order WHERE id > $1").bind(id);
    let count: i64 = count.fetch_one(cluster.write_model()).await?;
    Ok(u64::try_from(count)?)
}

/// What the clock of the write model's server says, in µs.
///
/// # Errors
/// When it does not answer.
pub async fn now_us(cluster: &Cluster) -> anyhow::Result<i64> {
    let now = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
    Ok(now.fetch_one(cluster.write_model()).await?)
}

impl Commits {
    /// Of the orders with an id above this.
    ///
    /// # Errors
    /// When a server does not answer, or does not note down when it commits.
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

    /// How many orders these are.
    #[must_use]
    pub fn orders(&self) -> usize {
        self.0.len()
    }

    /// How many of them are not in the read model.
    #[must_use]
    pub fn not_projected(&self) -> usize {
        self.0
            .iter()
            .filter(|commit| commit.projected_us.is_none())
            .count()
    }

    /// Orders written a second, in the time that begins with the first of them.
    ///
    /// # Errors
    /// When there are none.
    pub fn accepted_per_second(&self, duration: Duration) -> anyhow::Result<f64> {
        let end_us = self.first_us()? + i64::try_from(duration.as_micros())?;
        let accepted = self.0.iter().filter(|commit| commit.written_us < end_us);
        Ok(per_second(accepted.count(), duration))
    }

    /// Orders projected a second, in the same time.
    ///
    /// # Errors
    /// As there.
    pub fn projected_per_second(&self, duration: Duration) -> anyhow::Result<f64> {
        let end_us = self.first_us()? + i64::try_from(duration.as_micros())?;
        let in_time = |commit: &&Commit| commit.projected_us.is_some_and(|at_us| at_us < end_us);
        Ok(per_second(self.0.iter().filter(in_time).count(), duration))
    }

    /// From one commit to the other, in µs, the shortest first; of the orders that are projected.
    ///
    /// # Errors
    /// When an order was projected before it was written: the clock was set meanwhile.
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

    /// When the last order was written.
    ///
    /// # Errors
    /// When there are none.
    pub fn last_us(&self) -> anyhow::Result<i64> {
        let last = self.0.iter().map(|commit| commit.written_us).max();
        last.context("no order was accepted")
    }

    /// How many orders were not projected yet when the last one was written.
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
