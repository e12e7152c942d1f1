//! 8, too: messages so large that a few of them fill a container.

use std::sync::Arc;

use anyhow::ensure;
use cluster::{Cluster, Options, Raw, Service};

use super::messages::laid_aside;
use crate::audit::DEAD_LETTER_QUEUE;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::vitals::fits_container;

const MESSAGES: u64 = 60;
const LARGE: usize = 4 * 1024 * 1024;
/// Published together, as they pass through this process, too.
const AT_ONCE: u64 = 10;

/// Of the container of `read_model_sync` (docker-compose.yml).
const CONTAINER_BYTES: u64 = 128 * 1024 * 1024;

pub(super) fn scenarios() -> Vec<Scenario> {
    // Its own broker: what goes through it would be felt by others.
    let own = Options::default().with_own_servers();
    vec![Scenario::new(8, "large-messages", |stage| Box::pin(large(stage))).with_options(own)]
}

async fn large(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let shared = Arc::clone(&stage.shared);
    let waiting = async {
        // All of them wait when it comes, between orders.
        cluster.stop(Service::ReadModelSync).await?;
        for first in (0..MESSAGES).step_by(usize::try_from(AT_ONCE)?) {
            let batch: Vec<Raw> = (first..first + AT_ONCE).map(message).collect();
            cluster.publish(&batch).await?;
        }
        cluster.launch(Service::ReadModelSync)?;
        laid_aside(&cluster, MESSAGES).await?;
        fits_container(
            &cluster,
            Service::ReadModelSync,
            CONTAINER_BYTES,
            &shared.violations,
        )?;
        forget_letters(&cluster).await
    };
    stage
        .harmless_fault("messages: 60 of 4 MiB wait in the queue", "", waiting)
        .await
}

/// Counted and then deleted: as many bytes as these are not looked at one by one.
async fn forget_letters(cluster: &Cluster) -> anyhow::Result<()> {
    let letters = cluster.queue_messages(DEAD_LETTER_QUEUE).await?;
    ensure!(
        letters == MESSAGES,
        "{MESSAGES} messages became {letters} dead letters"
    );
    cluster.purge_queue(DEAD_LETTER_QUEUE).await
}

fn message(number: u64) -> Raw {
    Raw {
        body: vec![b'x'; LARGE],
        message_id: Some(format!("large-{number}")),
        message_type: Some("buy_order_created".to_owned()),
    }
}
