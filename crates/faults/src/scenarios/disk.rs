//! 11: no room for the write model.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::Options;

use crate::ledger::Outcome;
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Of the disk: an empty instance and its first log segments take about 60 MB.
const BYTES: u64 = 192 * 1024 * 1024;

const FULL: Duration = Duration::from_secs(10);

pub(super) fn scenarios() -> Vec<Scenario> {
    let options = Options::default().with_write_model_disk(BYTES);
    vec![Scenario::new(11, "disk-full", |stage| Box::pin(full(stage))).with_options(options)]
}

async fn full(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let full = async {
        cluster.fill_write_model_disk().await?;
        Stage::last(FULL).await;
        cluster.free_write_model_disk().await
    };
    stage.fault("disk of the write model full, then space again", "", full).await?;
    let refused = |entry: &crate::ledger::Entry| matches!(entry.outcome, Outcome::Unknown(_));
    let entries = stage.shared.ledger.entries();
    entries.iter().any(refused).then_some(()).context("the full disk kept no order from being accepted")
}
