//! Claims on events: short, renewed where that is needed, and worth nothing to a relay that comes back late.

use std::time::{Duration, Instant};

use cluster::{Cluster, Options, Service, wait_until};

use super::broker::{channel, ready};
use super::{buy, count, new_key, order_desk};

const LIMIT: Duration = Duration::from_secs(60);

/// A lease lasts 8 s, and a relay looks every half second; the rest is for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);

/// Claims wait for a lock that the test holds.
const CLAIMS_WAIT: &str = "
    CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
        'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
    CREATE TRIGGER claims_wait BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION wait_for_the_test()";

async fn a_claim_waits(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the claim waits", LIMIT, async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
             WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()",
        )
        .fetch_one(cluster.write_model())
        .await?;
        Ok(waiting == 1)
    })
    .await
}

async fn outbox_empties(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("the outbox is empty", LIMIT, async || {
        Ok(count(cluster, "outbox").await? == 0)
    })
    .await
}

#[tokio::test]
async fn a_relay_that_was_frozen_with_a_claim_publishes_nothing_of_what_another_took_meanwhile()
-> anyhow::Result<()> {
    let cluster = order_desk().await?;
    let pool = cluster.write_model();
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *lock)
        .await?;
    sqlx::raw_sql(CLAIMS_WAIT).execute(pool).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    a_claim_waits(&cluster).await?;

    // The claim commits, and its answer waits in the socket of a process that stands still.
    cluster.pause(Service::CreateBuyOrder)?;
    lock.rollback().await?;
    let claimed = Instant::now();
    sqlx::raw_sql("DROP TRIGGER claims_wait ON outbox")
        .execute(pool)
        .await?;
    let channel = channel(&cluster).await?;
    assert_eq!(count(&cluster, "outbox").await?, 1);
    assert_eq!(ready(&channel, "buy_order").await?, 0);

    cluster.start_extra(Service::CreateBuyOrder).await?;
    outbox_empties(&cluster).await?;
    assert!(claimed.elapsed() < TAKEN_OVER_WITHIN, "{:?}", claimed.elapsed());
    assert_eq!(ready(&channel, "buy_order").await?, 1);

    // An event that a third relay seems to hold: the late one must not give it back either.
    sqlx::query(
        "INSERT INTO outbox OVERRIDING SYSTEM VALUE SELECT 1, id, null, now(), now() + interval '1 hour' FROM buy_order
         ON CONFLICT DO NOTHING",
    )
    .execute(pool)
    .await?;
    cluster.resume(Service::CreateBuyOrder)?;
    wait_until("the late relay finds that its lease is over", LIMIT, async || {
        let lines = cluster.output(Service::CreateBuyOrder);
        Ok(lines
            .iter()
            .any(|line| line.contains("no longer ours to publish")))
    })
    .await?;
    assert_eq!(buy(&cluster, "USD", "2", &new_key()).await?.status, 200);
    wait_until("the next event is relayed", LIMIT, async || {
        Ok(count(&cluster, "outbox").await? == 1)
    })
    .await?;
    assert_eq!(ready(&channel, "buy_order").await?, 2, "each once");
    Ok(())
}

#[tokio::test]
async fn what_a_killed_relay_had_claimed_is_published_within_seconds_of_its_restart() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
    let pool = cluster.write_model();
    let mut lock = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(1)")
        .execute(&mut *lock)
        .await?;
    sqlx::raw_sql(CLAIMS_WAIT).execute(pool).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    a_claim_waits(&cluster).await?;
    cluster.kill(Service::CreateBuyOrder).await?;
    lock.rollback().await?;
    sqlx::raw_sql("DROP TRIGGER claims_wait ON outbox")
        .execute(pool)
        .await?;

    let restarted = Instant::now();
    cluster.start_service(Service::CreateBuyOrder).await?;
    outbox_empties(&cluster).await?;
    assert!(
        restarted.elapsed() < TAKEN_OVER_WITHIN,
        "{:?}",
        restarted.elapsed()
    );
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 1);
    Ok(())
}

async fn set_memory_limit(cluster: &Cluster, share: &str) -> anyhow::Result<()> {
    cluster
        .rabbitmqctl(&["set_vm_memory_high_watermark", share])
        .await
}

#[tokio::test]
async fn while_the_broker_is_short_of_memory_orders_are_accepted_and_their_claim_is_renewed()
-> anyhow::Result<()> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    let cluster = Cluster::start(Options::only(&services).with_own_servers()).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    set_memory_limit(&cluster, "0.000001").await?;
    for _ in 0..5 {
        assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    }

    // Longer than a lease, and than any publish may take while the broker does take messages.
    let blocked = Instant::now();
    let mut ends = std::collections::BTreeSet::new();
    wait_until("the claim is renewed again and again", LIMIT, async || {
        let end: (Option<String>, bool) = sqlx::query_as(
            "SELECT min(claimed_until)::text, coalesce(min(claimed_until) > now(), false) FROM outbox",
        )
        .fetch_one(cluster.write_model())
        .await?;
        if let (Some(end), claimed) = end {
            ends.insert(end);
            assert!(claimed || ends.len() == 1, "the claim was left to run out");
        }
        Ok(ends.len() > 4 && blocked.elapsed() > Duration::from_secs(12))
    })
    .await?;
    assert_eq!(count(&cluster, "outbox").await?, 5);
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);

    set_memory_limit(&cluster, "0.4").await?;
    let lifted = Instant::now();
    outbox_empties(&cluster).await?;
    assert!(lifted.elapsed() < TAKEN_OVER_WITHIN, "{:?}", lifted.elapsed());
    assert_eq!(
        ready(&channel(&cluster).await?, "buy_order").await?,
        7,
        "each once: nobody else took them, and nobody published them twice"
    );
    Ok(())
}
