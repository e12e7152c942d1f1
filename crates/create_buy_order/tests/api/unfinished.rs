//! Unfinished requests, far more than fit into the memory of a container: the process stays small and serves other clients.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connections::{connect, is_served, limit_files};
use super::start_cluster;

const CLIENTS: usize = 3_500;

/// Half of the memory limit in compose.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The highest resident memory of the process so far.
fn peak_bytes(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|rest| rest.split_whitespace().next());
    Ok(peak.context("no VmHWM")?.parse::<u64>()? * 1024)
}

/// The request of a container's health check.
async fn is_healthy(cluster: &Cluster) -> anyhow::Result<()> {
    let asked = Instant::now();
    let mut client = connect(cluster).await?;
    client
        .write_all(b"GET /healthcheck HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    ensure!(
        asked.elapsed() < Duration::from_secs(2),
        "took {:?}",
        asked.elapsed()
    );
    Ok(())
}

/// Many clients send this and wait. Meanwhile other clients are served.
async fn many_wait_after(cluster: &Cluster, beginning: &str) -> anyhow::Result<Vec<TcpStream>> {
    let mut waiting = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut client = connect(cluster).await?;
        // A client whose connection is given up may get its answer before it has sent everything.
        let _ = client.write_all(beginning.as_bytes()).await;
        waiting.push(client);
        if number % 250 == 0 {
            is_healthy(cluster).await?;
            is_served(cluster).await?;
        }
    }
    is_healthy(cluster).await?;
    is_served(cluster).await?;
    Ok(waiting)
}

#[tokio::test]
async fn unfinished_requests_stay_within_half_a_containers_memory_and_the_others_are_served()
-> anyhow::Result<()> {
    const HEAD: &str = "PUT /buy_order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let cluster = start_cluster().await?;
    let process = cluster.pid(Service::CreateBuyOrder).context("no process")?;
    limit_files(std::process::id(), 16_384)?;
    let bodies = format!("{HEAD}content-length: 16384\r\n\r\n{}", " ".repeat(16_000));
    let long_headers = format!("{HEAD}x: {}", "x".repeat(31_000));
    let headers = format!("{HEAD}x: {}", "x".repeat(12_000));
    let behind_a_request = format!("GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n{headers}");
    let short_headers = format!("{HEAD}x: {}", "x".repeat(400));
    for beginning in [
        "",
        "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
        &short_headers,
        &bodies,
        &long_headers,
        &headers,
        &behind_a_request,
    ] {
        let waiting = many_wait_after(&cluster, beginning).await?;
        let peak = peak_bytes(process)?;
        let what = beginning.len();
        ensure!(
            peak < MAX_BYTES,
            "{what} bytes each: it took {} KB of memory",
            peak / 1024
        );
        drop(waiting);
    }
    Ok(())
}

#[tokio::test]
async fn who_has_to_make_room_is_told_so() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    limit_files(std::process::id(), 16_384)?;
    let mut first = connect(&cluster).await?;
    first
        .write_all(b"GET /healthcheck HTTP/1.1\r\nhost: x\r\n")
        .await?;
    let idle = many_wait_after(&cluster, "").await?;
    let mut answer = String::new();
    first.read_to_string(&mut answer).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("x-request-id: "),
        "{answer}"
    );
    drop(idle);
    Ok(())
}
