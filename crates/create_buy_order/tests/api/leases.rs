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

    // An event that a third relay holds, and goes on holding: the late one must not give it back either.
    let third = OtherRelay::holds_an_event(pool).await?;
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
    third.still_holds_it().await
}

/// A relay that claims an event of the one order there is, and renews its claim in time for as long as nobody else changes it.
pub(crate) struct OtherRelay(tokio::task::JoinHandle<anyhow::Result<()>>);

impl OtherRelay {
    pub(crate) async fn holds_an_event(pool: &sqlx::PgPool) -> anyhow::Result<Self> {
        let mut until: String = sqlx::query_scalar(
            "INSERT INTO outbox (id, buy_order_id, claimed_until) OVERRIDING SYSTEM VALUE
             SELECT 1, id, now() + interval '8 seconds' FROM buy_order RETURNING claimed_until::text",
        )
        .fetch_one(pool)
        .await?;
        let pool = pool.clone();
        Ok(Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                until = sqlx::query_scalar(
                    "UPDATE outbox SET claimed_until = now() + interval '8 seconds'
                     WHERE id = 1 AND claimed_until = $1::timestamptz RETURNING claimed_until::text",
                )
                .bind(until)
                .fetch_one(&pool)
                .await?;
            }
        })))
    }

    pub(crate) async fn still_holds_it(self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.0.is_finished(), "its claim was changed: {:?}", self.0.await);
        self.0.abort();
        Ok(())
    }
}

#[tokio::test]
async fn after_the_databases_clock_was_set_back_what_was_claimed_is_published_within_seconds()
-> anyhow::Result<()> {
    let cluster = order_desk().await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    // What is left of a relay that claimed an event, and died, before the clock went back by ten minutes.
    sqlx::query(
        "INSERT INTO outbox (buy_order_id, created_at, claimed_until)
         SELECT id, now() + interval '10 minutes', now() + interval '10 minutes 5 seconds' FROM buy_order",
    )
    .execute(cluster.write_model())
    .await?;
    let set_back = Instant::now();
    outbox_empties(&cluster).await?;
    assert!(set_back.elapsed() < TAKEN_OVER_WITHIN, "{:?}", set_back.elapsed());
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 2);
    Ok(())
}

#[tokio::test]
async fn the_age_of_an_event_from_the_future_is_how_long_it_was_seen_to_wait() -> anyhow::Result<()> {
    let cluster = order_desk().await?;
    let nobody = cluster::PortLease::take()?.port().to_string();
    cluster.set_env(Service::CreateBuyOrder, "Q_PORT", &nobody);
    cluster.stop(Service::CreateBuyOrder).await?;
    cluster.start_service(Service::CreateBuyOrder).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    // As it looks once the clock of the database went back.
    sqlx::query("UPDATE outbox SET created_at = now() + interval '10 minutes'")
        .execute(cluster.write_model())
        .await?;
    let mut ages = Vec::new();
    wait_until("the age grows", LIMIT, async || {
        let url = cluster.url(Service::CreateBuyOrder) + "/metrics";
        let shown = cluster.http().get(url).send().await?.text().await?;
        let age = shown
            .lines()
            .find_map(|line| line.strip_prefix("outbox_oldest_age_seconds "));
        ages.extend(age.map(str::parse::<f64>).transpose()?);
        Ok(ages.last().is_some_and(|age| *age > 4.0))
    })
    .await?;
    assert!(ages.iter().all(|age| (0.0..60.0).contains(age)), "{ages:?}");
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
