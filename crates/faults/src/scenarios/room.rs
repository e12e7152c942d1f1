//! Family 15: many orders at once, spread over the replicas, of which just one fits under the cap.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use cluster::{blocked_sessions, lock_running_total, wait_until};
use futures_util::future::join_all;
use sqlx::{PgPool, Postgres, Transaction};

use crate::ledger::{Identity, Outcome};
use crate::load::random_key;
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::Invariant;

/// Price of one BTC in cents, at the rate of the simulator.
const BTC_IN_CENTS: i64 = 4_847_888;

/// Each round takes three fifths of the room that is left. The rest is for the other clients.
const ROUNDS: usize = 3;

const AT_ONCE: usize = 16;

/// Shorter than the lock timeout of the services.
const BOTH_WAIT_WITHIN: Duration = Duration::from_secs(4);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(15, "last-room", |stage| Box::pin(raced_for(stage))).with_replicas()]
}

async fn raced_for(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    for _ in 0..ROUNDS {
        let cents = u64::try_from(room_in_cents(cluster.write_model()).await? * 3 / 5)?;
        let keys: Vec<_> = (0..AT_ONCE).map(|_| random_key(&mut stage.random)).collect();
        let mut accepted = 0;
        let raced = async {
            let placed = keys.iter().enumerate().map(async |(number, key)| {
                let identity = Identity {
                    currency: "USD",
                    cents,
                    key: *key,
                };
                shared.place(&identity, &identity.amount(), number % 2).await
            });
            // Locked before the first order is sent, so that both replicas wait before either of them can write.
            let lock = lock_running_total(cluster.write_model()).await?;
            let (outcomes, released) = tokio::join!(
                join_all(placed),
                release_when_both_wait(lock, cluster.write_model())
            );
            released?;
            accepted = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, Outcome::Acknowledged(_)))
                .count();
            Ok(())
        };
        stage
            .harmless_fault("orders: 16 at once, of which one fits", "", raced)
            .await?;
        if accepted != 1 {
            shared.violations.add(
                Invariant::I3,
                format!("{accepted} orders were accepted where one fits"),
            );
        }
    }
    Ok(())
}

/// Holds the lock of the total until both writers wait for it.
async fn release_when_both_wait(
    lock: Transaction<'static, Postgres>,
    write_model: &PgPool,
) -> anyhow::Result<()> {
    wait_until("both writers wait for the total", BOTH_WAIT_WITHIN, async || {
        Ok(blocked_sessions(write_model, "accept_orders").await?.len() >= 2)
    })
    .await?;
    Ok(lock.commit().await?)
}

/// The room that is left under the cap, in cents.
pub(super) async fn room_in_cents(write_model: &PgPool) -> anyhow::Result<i64> {
    let room: i64 =
        sqlx::query_scalar("SELECT floor((100 - btc_amount) * $1)::bigint FROM buy_order_running_total")
            .bind(BTC_IN_CENTS)
            .fetch_one(write_model)
            .await?;
    ensure!(room > BTC_IN_CENTS, "no room is left for the load");
    Ok(room)
}
