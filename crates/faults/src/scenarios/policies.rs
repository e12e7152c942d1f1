//! Family 4, continued: queues that are full because of a policy of the broker's administrators.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{Service, wait_until};
use serde_json::json;

use super::messages::{nonsense, wait_for_dead_letters};
use crate::audit::DEAD_LETTER_QUEUE;
use crate::ledger::Outcome;
use crate::load::{Shared, new_order};
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::Invariant;

const QUEUE: &str = "buy_order";

/// The maximum length of the queue of orders.
const FEW: u32 = 5;

const FULL: Duration = Duration::from_secs(10);

/// Time for the first dead letter to reach its queue.
const FIRST: Duration = Duration::from_secs(1);

/// Time from an order's acceptance until it is shown: milliseconds on an idle machine.
const USUAL_LAG: Duration = Duration::from_secs(2);

/// How many orders may be slower, as the machine is busy.
const SLOW_ORDERS: usize = 1;

const SHOWN_WITHIN: Duration = Duration::from_secs(20);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(4, "queue-policies", |stage| {
        Box::pin(policies(stage))
    })]
}

async fn policies(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let shared = Arc::clone(&stage.shared);
    let poison = nonsense();
    stage.poisoned = poison.iter().map(|message| message.body.clone()).collect();
    let letters = u64::try_from(poison.len())?;
    let mut random = stage.random.fork();
    let no_letters = async {
        cluster
            .set_policy(DEAD_LETTER_QUEUE, json!({"max-length": 0}))
            .await?;
        // A queue may take one more message than its policy allows before it refuses.
        cluster.publish(&poison[..1]).await?;
        Stage::last(FIRST).await;
        cluster.publish(&poison[1..]).await?;
        let lags = lags(&shared, &mut random).await?;
        let held_back = cluster.queue_messages(DEAD_LETTER_QUEUE).await? < letters;
        ensure!(held_back, "the queue of dead letters took them all");
        cluster.delete_policy(DEAD_LETTER_QUEUE).await?;
        let slow = lags.iter().filter(|lag| **lag > USUAL_LAG).count();
        if slow > SLOW_ORDERS {
            let what = format!("while dead letters wait, orders are shown after {lags:.1?}");
            shared.violations.add(Invariant::I14, what);
        }
        wait_for_dead_letters(&cluster, letters).await
    };
    stage
        .harmless_fault("RabbitMQ: queue of dead letters full by policy", "", no_letters)
        .await?;

    let no_orders = async {
        cluster.stop(Service::ReadModelSync).await?;
        cluster.set_policy(QUEUE, json!({"max-length": FEW})).await?;
        Stage::last(FULL).await;
        cluster.delete_policy(QUEUE).await?;
        cluster.start_service(Service::ReadModelSync).await
    };
    stage
        .harmless_fault("RabbitMQ: queue of orders full by policy", "", no_orders)
        .await
}

/// Places orders and measures how long each takes until it is shown.
async fn lags(shared: &Shared, random: &mut fastrand::Rng) -> anyhow::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut lags = Vec::new();
    while began.elapsed() < FULL {
        let identity = new_order(random);
        // The ledger records why an order was not accepted.
        let Outcome::Acknowledged(order) = shared.place(&identity, &identity.amount(), 0).await else {
            continue;
        };
        let accepted = Instant::now();
        wait_until("an order is shown", SHOWN_WITHIN, async || {
            Ok(shared.client.shown_by_all(order.id).await)
        })
        .await?;
        lags.push(accepted.elapsed());
        Stage::last(Duration::from_millis(200)).await;
    }
    Ok(lags)
}
