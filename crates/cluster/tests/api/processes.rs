//! The operations of the harness on the processes of services.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster::{Cluster, Options, Service, wait_until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const LIMIT: Duration = Duration::from_secs(30);
const SERVICE: Service = Service::BtcPrice;

async fn answers(cluster: &Cluster, url: &str) -> bool {
    let request = cluster.http().get(format!("{url}/healthcheck"));
    request.timeout(Duration::from_secs(1)).send().await.is_ok()
}

#[tokio::test]
async fn extra_processes_are_listed_paused_and_started_again_on_their_ports() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[SERVICE])).await?;
    assert!(cluster.extras(SERVICE).is_empty());
    let url = cluster.start_extra(SERVICE).await?;
    assert_eq!(cluster.extras(SERVICE), std::slice::from_ref(&url));
    assert!(cluster.extras(Service::Migration).is_empty());
    cluster.pause(&url)?;
    assert!(!answers(&cluster, &url).await);
    cluster.resume(&url)?;
    assert!(answers(&cluster, &url).await);
    cluster.stop(&url).await?;
    cluster.start_service(&url).await?;
    assert!(answers(&cluster, &url).await);
    cluster.kill(&url).await?;
    assert!(cluster.vitals(&url).is_err());
    cluster.stop(&url).await?;
    cluster.start_service(&url).await?;
    assert!(cluster.vitals(&url)?.threads > 0);
    Ok(())
}

#[tokio::test]
async fn open_files_are_counted_and_limited() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[SERVICE])).await?;
    let before = cluster.vitals(SERVICE)?;
    assert!(
        before.resident_bytes > 1_000_000 && before.threads > 0,
        "{before:?}"
    );
    cluster.limit_open_files(SERVICE, before.open_files + 5)?;
    let url = cluster.url(SERVICE);
    let address = url.strip_prefix("http://").context("no HTTP")?;
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(tokio::net::TcpStream::connect(address).await?);
    }
    wait_until("one is not accepted", LIMIT, async || {
        let lines = cluster.output(SERVICE);
        Ok(lines
            .iter()
            .any(|line| line.contains("a connection could not be accepted")))
    })
    .await?;
    let vitals = cluster.vitals(SERVICE)?;
    // The limit applies to the number of a new descriptor, and open ones may be above it.
    assert!(vitals.open_files < before.open_files + 20, "{vitals:?}");
    cluster.limit_open_files(SERVICE, 1000)?;
    wait_until("all are accepted", LIMIT, async || {
        let vitals = cluster.vitals(SERVICE)?;
        Ok(vitals.open_files >= before.open_files + 20 && vitals.sockets >= before.sockets + 20)
    })
    .await
}

#[tokio::test]
async fn a_starved_service_is_slow_can_be_paused_and_recovers() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[SERVICE])).await?;
    let url = cluster.url(SERVICE);
    let ten = async || {
        let started = Instant::now();
        for _ in 0..10 {
            let answer = cluster.http().get(format!("{url}/healthcheck")).send();
            answer.await?.error_for_status()?;
            // Several requests, so that the answers do not all fit into one period.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(started.elapsed())
    };
    let usual = ten().await?;
    let starved = cluster.starve(SERVICE, 95)?;
    let slow = ten().await?;
    assert!(slow > usual + Duration::from_millis(300), "{usual:?} {slow:?}");
    cluster.pause(SERVICE)?;
    assert!(!answers(&cluster, &url).await);
    cluster.resume(SERVICE)?;
    assert!(answers(&cluster, &url).await);
    drop(starved);
    let after = ten().await?;
    assert!(after < slow, "{after:?} {slow:?}");
    assert!(cluster.starve(SERVICE, 101).is_err());
    Ok(())
}

#[tokio::test]
async fn a_clock_is_off_from_the_next_start_on_until_it_is_reset() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[SERVICE])).await?;
    let off = || {
        let events = cluster.logs(SERVICE);
        let last = events.last().context("no event")?;
        let logged_at = last["logged_at"].as_str().context("no time")?;
        let logged_at = OffsetDateTime::parse(logged_at, &Rfc3339)?;
        anyhow::Ok((logged_at - OffsetDateTime::now_utc()).whole_minutes())
    };
    // Events are read a moment after they were written: the last one may still be of the process before.
    let is_off_by = async |minutes: RangeInclusive<i64>| {
        wait_until("the last event has this time", LIMIT, async || {
            Ok(minutes.contains(&off()?))
        })
        .await
    };
    is_off_by(0..=0).await?;
    cluster.set_clock(SERVICE, "+1h")?;
    cluster.stop(SERVICE).await?;
    let started = Instant::now();
    cluster.start_service(SERVICE).await?;
    is_off_by(59..=60).await?;
    assert!(started.elapsed() < LIMIT);
    cluster.reset_clock(SERVICE);
    cluster.stop(SERVICE).await?;
    cluster.start_service(SERVICE).await?;
    is_off_by(0..=0).await
}
