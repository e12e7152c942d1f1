//! Family 11: the disk of the write model is full.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::Options;

use crate::ledger::Outcome;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Size of the disk. An empty instance and its first WAL segments take about 60 MB.
const DISK_BYTES: u64 = 192 * 1024 * 1024;

const FULL: Duration = Duration::from_secs(10);
const DEAD: Duration = Duration::from_secs(3);

/// Part of the body of `503` when the write model did not take an order.
const NOT_WRITTEN: &str = "orders cannot be written";

pub(super) fn scenarios() -> Vec<Scenario> {
    let options = Options::default().with_write_model_disk(DISK_BYTES);
    vec![Scenario::new(11, "disk-full", |stage| Box::pin(full(stage))).with_options(options)]
}

async fn full(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let full = async {
        cluster.fill_write_model_disk().await?;
        Stage::last(FULL).await;
        cluster.free_write_model_disk().await
    };
    stage
        .fault("disk of the write model full, then space again", "", full)
        .await?;
    let entries = stage.shared.ledger.entries();
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Unknown(why) if why.contains(NOT_WRITTEN));
    entries
        .iter()
        .any(|entry| refused(&entry.outcome))
        .then_some(())
        .context("all orders were accepted while the disk was full")?;
    let exhausted = async {
        cluster.exhaust_write_model_disk().await?;
        Stage::last(DEAD).await;
        cluster.free_write_model_disk().await
    };
    stage
        .fault("PostgreSQL dead of a full disk, then space again", "", exhausted)
        .await
}
