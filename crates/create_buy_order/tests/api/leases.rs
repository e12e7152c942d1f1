//! The lease of the relay: one of several replicas works, another takes over within seconds, and a relay that comes back late only repeats messages.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use cluster::{Cluster, Link, Options, Service, Traffic, blocked_sessions, wait_until};
use create_buy_order::db::lease;
use sqlx::PgPool;
use uuid::Uuid;

use super::broker::{channel, ready, taken};
use super::outbox::{outbox_empties, place, send_everything_again};
use super::{buy, count, new_key, start_cluster, two_processes};

const LIMIT: Duration = Duration::from_secs(60);

/// The term of the relay's lease.
const TERM: Duration = Duration::from_secs(5);

/// A term of the lease, the half second after which a standby relay looks again, and a margin for a busy machine.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);

/// Much less than a term.
const AT_ONCE: Duration = Duration::from_secs(2);

async fn holder(pool: &PgPool) -> anyhow::Result<Option<Uuid>> {
    Ok(
        sqlx::query_scalar("SELECT holder FROM relay_lease WHERE held_until > clock_timestamp()")
            .fetch_optional(pool)
            .await?
            .flatten(),
    )
}

/// Waits until a relay other than this one holds the lease.
async fn taken_over(pool: &PgPool, from: Option<Uuid>) -> anyhow::Result<Uuid> {
    let mut now = None;
    wait_until("a relay takes the lease", LIMIT, async || {
        now = holder(pool).await?;
        Ok(now.is_some() && now != from)
    })
    .await?;
    Ok(now.unwrap_or_default())
}

/// A cluster with a working relay, the id of that relay, and the URL of a process whose relay stands by.
async fn two_relays() -> anyhow::Result<(Cluster, Uuid, String)> {
    let cluster = start_cluster().await?;
    let first = taken_over(cluster.write_model(), None).await?;
    let second = cluster.start_extra(Service::CreateBuyOrder).await?;
    Ok((cluster, first, second))
}

/// The publishes of the process at this URL, by outcome.
async fn published(cluster: &Cluster, url: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let shown = super::metrics(&cluster.http(), url).await?;
    let counters = shown
        .iter()
        .filter_map(|line| line.strip_prefix("broker_publishes_total")?.rsplit_once(' '));
    counters
        .map(|(outcome, count)| Ok((outcome.to_owned(), count.parse()?)))
        .collect()
}

#[tokio::test]
async fn of_two_replicas_one_relays_what_both_have_written() -> anyhow::Result<()> {
    const ORDERS: u32 = 600;
    let (cluster, first, second) = two_relays().await?;
    let urls = [cluster.url(Service::CreateBuyOrder), second];
    place(&cluster, &urls, ORDERS as usize).await?;
    outbox_empties(&cluster).await?;
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, ORDERS);
    let of_both = [
        published(&cluster, &urls[0]).await?,
        published(&cluster, &urls[1]).await?,
    ];
    let sums = of_both.each_ref().map(|outcomes| outcomes.values().sum::<u64>());
    assert_eq!(sums, [u64::from(ORDERS), 0], "{of_both:?}");
    assert_eq!(holder(cluster.write_model()).await?, Some(first));
    Ok(())
}

#[tokio::test]
async fn when_the_relay_that_works_is_killed_another_takes_over_when_its_term_is_over() -> anyhow::Result<()>
{
    let (cluster, first, second) = two_relays().await?;
    cluster.kill(Service::CreateBuyOrder).await?;
    let killed = Instant::now();
    place(&cluster, std::slice::from_ref(&second), 5).await?;
    outbox_empties(&cluster).await?;
    assert!(killed.elapsed() < TAKEN_OVER_WITHIN, "{:?}", killed.elapsed());
    assert_ne!(holder(cluster.write_model()).await?, Some(first));
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 5);
    Ok(())
}

#[tokio::test]
async fn when_the_relay_that_works_is_stopped_another_takes_over_at_once() -> anyhow::Result<()> {
    let (cluster, first, second) = two_relays().await?;
    cluster.stop(Service::CreateBuyOrder).await?;
    let stopped = Instant::now();
    assert_ne!(holder(cluster.write_model()).await?, Some(first), "given back");
    place(&cluster, std::slice::from_ref(&second), 5).await?;
    outbox_empties(&cluster).await?;
    assert!(stopped.elapsed() < AT_ONCE, "{:?}", stopped.elapsed());
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 5);
    Ok(())
}

#[tokio::test]
async fn what_a_killed_relay_left_is_published_within_seconds_of_its_restart() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    cluster.kill(Service::CreateBuyOrder).await?;
    send_everything_again(&cluster).await?;
    let restarted = Instant::now();
    cluster.start_service(Service::CreateBuyOrder).await?;
    outbox_empties(&cluster).await?;
    assert!(
        restarted.elapsed() < TAKEN_OVER_WITHIN,
        "{:?}",
        restarted.elapsed()
    );
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 2);
    Ok(())
}

/// Makes the lease end after this time.
async fn leased_for(pool: &PgPool, holder: Uuid, duration: Duration) -> anyhow::Result<()> {
    sqlx::query(
        "UPDATE relay_lease SET holder = $1, held_until = clock_timestamp() + make_interval(secs => $2)",
    )
    .bind(holder)
    .bind(duration.as_secs_f64())
    .execute(pool)
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_lease_is_its_holders_for_two_terms_at_most_and_only_the_holder_gives_it_back() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::only(&[])).await?;
    let pool = cluster.write_model();
    let (other, own) = (Uuid::new_v4(), Uuid::new_v4());
    let mut connection = pool.acquire().await?;
    let mut hold = async |holder| lease::hold(&mut connection, holder, TERM).await;
    assert!(hold(other).await?, "nobody has it");
    assert!(hold(other).await?, "renewed");
    assert!(!hold(own).await?);
    leased_for(pool, other, 2 * TERM - Duration::from_secs(1)).await?;
    assert!(!hold(own).await?);
    // The clock was set back after the lease was taken.
    leased_for(pool, other, 2 * TERM + Duration::from_secs(1)).await?;
    assert!(hold(own).await?);
    assert!(!hold(other).await?);

    let mut connection = pool.acquire().await?;
    lease::release(&mut connection, other).await?;
    assert_eq!(holder(pool).await?, Some(own));
    lease::release(&mut connection, own).await?;
    assert_eq!(holder(pool).await?, None);
    assert!(lease::hold(&mut connection, other, TERM).await?);
    Ok(())
}

#[tokio::test]
async fn after_the_databases_clock_was_set_back_messages_are_published_within_seconds() -> anyhow::Result<()>
{
    let cluster = start_cluster().await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    // The lease of a relay that died before the clock was set back by ten minutes.
    cluster.kill(Service::CreateBuyOrder).await?;
    send_everything_again(&cluster).await?;
    let pool = cluster.write_model();
    leased_for(pool, Uuid::new_v4(), Duration::from_secs(605)).await?;
    sqlx::query("UPDATE outbox SET created_at = now() + interval '10 minutes'")
        .execute(pool)
        .await?;
    cluster.start_service(Service::CreateBuyOrder).await?;
    let started = Instant::now();
    outbox_empties(&cluster).await?;
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 2);
    Ok(())
}

#[tokio::test]
async fn messages_are_left_alone_while_another_relay_renews_its_lease() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    cluster.stop(Service::CreateBuyOrder).await?;
    let other = Uuid::new_v4();
    let mut connection = cluster.write_model().acquire().await?;
    assert!(lease::hold(&mut connection, other, TERM).await?);
    cluster.start_service(Service::CreateBuyOrder).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 3).await?;
    let since = Instant::now();
    while since.elapsed() < 2 * TERM {
        assert!(lease::hold(&mut connection, other, TERM).await?, "it was taken");
        assert_eq!(count(&cluster, "outbox").await?, 3);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let ended = Instant::now();
    outbox_empties(&cluster).await?;
    assert!(ended.elapsed() < TAKEN_OVER_WITHIN, "{:?}", ended.elapsed());
    assert_eq!(ready(&channel(&cluster).await?, "buy_order").await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_relay_that_was_frozen_while_another_took_over_repeats_what_it_had_in_hand_and_stands_by()
-> anyhow::Result<()> {
    let (cluster, first, second) = two_relays().await?;
    let pool = cluster.write_model();
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    outbox_empties(&cluster).await?;
    let mut lock = pool.begin().await?;
    sqlx::query("LOCK TABLE outbox").execute(&mut *lock).await?;
    sqlx::query(
        "INSERT INTO outbox (type, routing_key, message_id, payload)
         SELECT 'buy_order_created', 'buy_order', external_id, buy_order_created_payload(buy_order, 'USD') FROM buy_order",
    )
    .execute(&mut *lock)
    .await?;
    wait_until("the relay reads", LIMIT, async || {
        Ok(blocked_sessions(pool, "FROM outbox ORDER BY id LIMIT $1")
            .await?
            .len()
            == 1)
    })
    .await?;
    // The answer waits in the socket of the stopped process.
    cluster.pause(Service::CreateBuyOrder)?;
    lock.commit().await?;
    let frozen = Instant::now();
    let channel = channel(&cluster).await?;
    assert_eq!(ready(&channel, "buy_order").await?, 1, "that of the order");

    let by_then = taken_over(pool, Some(first)).await?;
    outbox_empties(&cluster).await?;
    assert!(frozen.elapsed() < TAKEN_OVER_WITHIN, "{:?}", frozen.elapsed());
    assert_eq!(ready(&channel, "buy_order").await?, 2);

    cluster.resume(Service::CreateBuyOrder)?;
    wait_until("the late relay repeats its message", LIMIT, async || {
        Ok(ready(&channel, "buy_order").await? == 3)
    })
    .await?;
    let urls = [cluster.url(Service::CreateBuyOrder), second];
    place(&cluster, &urls, 40).await?;
    outbox_empties(&cluster).await?;
    assert_eq!(
        holder(pool).await?,
        Some(by_then),
        "the late one did not take it back"
    );
    assert_eq!(ready(&channel, "buy_order").await?, 43, "and repeats no more");
    assert_eq!(distinct(&taken(&channel, "buy_order").await?), 41);
    Ok(())
}

fn distinct(ids: &[String]) -> usize {
    ids.iter().collect::<HashSet<_>>().len()
}

#[tokio::test]
async fn a_relay_that_loses_the_broker_lets_another_work_at_once_and_gets_no_lease_until_it_reaches_it()
-> anyhow::Result<()> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    let options = Options::only(&services).with_links(&[Link::CreateBuyOrderToBroker]);
    let cluster = Cluster::start(options).await?;
    let pool = cluster.write_model();
    let first = taken_over(pool, None).await?;
    // Not through the proxy.
    cluster.set_env(
        Service::CreateBuyOrder,
        "Q_PORT",
        &cluster.queue().port.to_string(),
    );
    let second = cluster.start_extra(Service::CreateBuyOrder).await?;
    let link = cluster.link(Link::CreateBuyOrderToBroker)?;
    link.set(Traffic::Refuse);
    let lost = Instant::now();
    let by_then = taken_over(pool, Some(first)).await?;
    assert!(lost.elapsed() < AT_ONCE, "{:?}", lost.elapsed());
    let urls = [cluster.url(Service::CreateBuyOrder), second.clone()];
    place(&cluster, &urls, 40).await?;
    outbox_empties(&cluster).await?;

    // There is no other relay, and still it does not take a lease that it cannot use.
    cluster.stop(&second).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    let since = Instant::now();
    while since.elapsed() < TERM {
        assert_eq!(holder(pool).await?, None);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(count(&cluster, "outbox").await?, 1);
    link.set(Traffic::Pass);
    outbox_empties(&cluster).await?;
    assert_ne!(holder(pool).await?, Some(by_then));
    assert_eq!(
        distinct(&taken(&channel(&cluster).await?, "buy_order").await?),
        41
    );
    Ok(())
}

#[tokio::test]
async fn while_the_broker_is_short_of_memory_orders_are_accepted_and_all_are_delivered_afterwards()
-> anyhow::Result<()> {
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    let cluster = Cluster::start(Options::only(&services).with_own_servers()).await?;
    let urls = two_processes(&cluster).await?;
    place(&cluster, &urls, 1).await?;
    outbox_empties(&cluster).await?;
    cluster.broker_memory_alarm(true).await?;
    place(&cluster, &urls, 40).await?;

    // Longer than a lease, and than any publish takes while the broker accepts messages.
    let blocked = Instant::now();
    while blocked.elapsed() < Duration::from_secs(12) {
        assert!(
            count(&cluster, "outbox").await? >= 40,
            "nothing is deleted that the broker has not confirmed"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    place(&cluster, &urls, 4).await?;
    assert_eq!(count(&cluster, "outbox").await?, 44);

    cluster.broker_memory_alarm(false).await?;
    let lifted = Instant::now();
    outbox_empties(&cluster).await?;
    assert!(lifted.elapsed() < TAKEN_OVER_WITHIN, "{:?}", lifted.elapsed());
    // Each relay had already read them when it was blocked.
    let mut ids = Vec::new();
    let channel = channel(&cluster).await?;
    wait_until("all are delivered", LIMIT, async || {
        ids.extend(taken(&channel, "buy_order").await?);
        Ok(distinct(&ids) == 45)
    })
    .await
}

#[tokio::test]
async fn the_age_of_a_message_from_the_future_is_how_long_it_was_seen_to_wait() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let nobody = cluster::PortLease::take()?.port().to_string();
    cluster.set_env(Service::CreateBuyOrder, "Q_PORT", &nobody);
    cluster.stop(Service::CreateBuyOrder).await?;
    cluster.start_service(Service::CreateBuyOrder).await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    // The state after the clock of the database was set back.
    sqlx::query("UPDATE outbox SET created_at = now() + interval '10 minutes'")
        .execute(cluster.write_model())
        .await?;
    let mut ages = Vec::new();
    wait_until("the age grows", LIMIT, async || {
        let shown = super::metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await?;
        let age = shown
            .iter()
            .find_map(|line| line.strip_prefix("outbox_oldest_age_seconds "));
        ages.extend(age.map(str::parse::<f64>).transpose()?);
        Ok(ages.last().is_some_and(|age| *age > 4.0))
    })
    .await?;
    assert!(ages.iter().all(|age| (0.0..60.0).contains(age)), "{ages:?}");
    Ok(())
}
