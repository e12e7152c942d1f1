//! The metric of the queues' sizes. Each replica asks the broker each second, while it is connected.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::broker::{Depths, topology};
use common::metrics::read_gauges;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

const ASK_EVERY: Duration = Duration::from_secs(1);

/// After this time what is shown is too old.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that are ready, by queue; those that are known.
static READY: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

static SHOWN: LazyLock<()> = LazyLock::new(|| {
    read_gauges(
        "queue_messages",
        "Messages in the queue and in its dead-letter queue that are ready for delivery. Absent while this process is not connected. The same for every replica.",
        &["queue"],
        |gauges| {
            gauges.reset();
            for (queue, ready) in known().iter() {
                gauges.with_label_values(&[queue]).set((*ready).into());
            }
        },
    );
});

/// Shows the sizes from now on, as far as they are known.
pub(crate) fn show() {
    LazyLock::force(&SHOWN);
}

/// Asks for the sizes of the queue and of its dead-letter queue until the returned guard is dropped. Then they are not known any more.
pub(crate) fn watch(depths: Depths, queue: &str) -> Watching {
    let queues = [queue.to_owned(), topology::dead_letter_name(queue)];
    Watching(AbortOnDropHandle::new(tokio::spawn(ask(depths, queues))))
}

/// See [`watch`].
#[derive(Debug)]
pub(crate) struct Watching(AbortOnDropHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
        known().clear();
    }
}

async fn ask(mut depths: Depths, queues: [String; 2]) {
    loop {
        for queue in &queues {
            let depth = timeout(ANSWER_TIMEOUT, depths.of(queue)).await;
            let mut known = known();
            match depth {
                Ok(Ok(depth)) => drop(known.insert(queue.clone(), depth.ready)),
                Ok(Err(_)) | Err(_) => drop(known.remove(queue)),
            }
        }
        sleep(ASK_EVERY).await;
    }
}

fn known() -> MutexGuard<'static, BTreeMap<String, u32>> {
    READY.lock().unwrap_or_else(PoisonError::into_inner)
}
