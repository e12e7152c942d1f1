//! Pages that are open.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{Cluster, Service, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Events, LIMIT, alone, url};

#[tokio::test]
async fn so_many_pages_are_open_and_no_more_until_one_is_closed() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let mut viewers = Vec::new();
    for _ in 0..32 {
        viewers.push(Events::of(&cluster).await?);
    }
    let one_more = cluster.http().get(url(&cluster, "/events")).send().await?;
    assert_eq!(one_more.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        one_more.json::<Value>().await?,
        json!({"detail": "32 pages are open already: close one and load this one again"})
    );
    for viewer in &mut viewers {
        viewer.next_state().await?;
    }
    viewers.pop();
    wait_until("there is room again", LIMIT, async || {
        viewers.push(Events::of(&cluster).await?);
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_service_that_stops_ends_the_streams_and_is_gone_within_5_s() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let mut viewer = Events::of(&cluster).await?;
    viewer.next_state().await?;
    let began = Instant::now();
    cluster.terminate(Service::Console)?;
    // The end of the stream, and no broken connection.
    while viewer.next().await?.is_some() {}
    let ended = cluster
        .wait_for_end(Service::Console, Duration::from_secs(5))
        .await?;
    ensure!(ended.success(), "{ended:?}");
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_stream_is_not_idle_and_so_does_not_make_room_for_idle_connections() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let mut viewer = Events::of(&cluster).await?;
    viewer.next_state().await?;
    let files = [
        format!("--pid={}", std::process::id()),
        "--nofile=8192:".to_owned(),
    ];
    ensure!(
        Command::new("prlimit").args(files).status()?.success(),
        "prlimit failed"
    );
    // More than a service takes.
    let mut idle = Vec::new();
    for _ in 0..2_500 {
        idle.push(TcpStream::connect(url(&cluster, "").trim_start_matches("http://")).await?);
    }
    for _ in 0..3 {
        viewer.next_state().await?;
    }
    Ok(())
}

/// The limit for an answer is 15 s, and that for the headers of the next request 45 s.
#[tokio::test]
async fn a_stream_outlives_the_limits_of_answers() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let request = cluster
        .http()
        .get(url(&cluster, "/events"))
        .timeout(Duration::from_secs(80));
    let mut viewer = Events::from(request).await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(50) {
        viewer.next_state().await?;
    }
    Ok(())
}
