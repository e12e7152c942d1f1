//! Family 8, continued: messages so large that a few of them fill the memory of a container.

use std::sync::Arc;

use anyhow::ensure;
use cluster::{Cluster, Options, Raw, Service};

use super::messages::wait_for_dead_letters;
use crate::audit::DEAD_LETTER_QUEUE;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::vitals::fits_container;

const MESSAGES: u64 = 60;
const LARGE: usize = 4 * 1024 * 1024;
/// Published together. Few, because this process also holds them in memory.
const AT_ONCE: u64 = 10;

/// Memory of the container of `read_model_sync` (docker-compose.yml).
const CONTAINER_BYTES: u64 = 128 * 1024 * 1024;

pub(super) fn scenarios() -> Vec<Scenario> {
    // Its own broker, as the load would disturb other scenarios.
    let own = Options::default().with_own_servers();
    vec![Scenario::new(8, "large-messages", |stage| Box::pin(large(stage))).with_options(own)]
}

async fn large(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let shared = Arc::clone(&stage.shared);
    let waiting = async {
        // All of them wait in the queue, between orders, when it starts.
        cluster.stop(Service::ReadModelSync).await?;
        for first in (0..MESSAGES).step_by(usize::try_from(AT_ONCE)?) {
            let batch: Vec<Raw> = (first..first + AT_ONCE).map(message).collect();
            cluster.publish(&batch).await?;
        }
        cluster.launch(Service::ReadModelSync)?;
        wait_for_dead_letters(&cluster, MESSAGES).await?;
        fits_container(
            &cluster,
            Service::ReadModelSync,
            CONTAINER_BYTES,
            &shared.violations,
        )?;
        delete_letters(&cluster).await
    };
    stage
        .harmless_fault("messages: 60 of 4 MiB wait in the queue", "", waiting)
        .await
}

/// Counts the dead letters and deletes them: they are too large to be read one by one.
async fn delete_letters(cluster: &Cluster) -> anyhow::Result<()> {
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
