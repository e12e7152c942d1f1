//! Slow, silent, endless or malformed clients, and a process without free file descriptors: other clients are served.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service, wait_until};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::broker::close_connections;
use super::{buy, count, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(60);

/// A pause between requests on a kept-alive connection, typical of a slow client.
const A_SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn connect(cluster: &Cluster) -> anyhow::Result<TcpStream> {
    let url = cluster.url(Service::CreateBuyOrder);
    Ok(TcpStream::connect(url.trim_start_matches("http://")).await?)
}

async fn connect_often(cluster: &Cluster, times: usize) -> anyhow::Result<Vec<TcpStream>> {
    let mut connections = Vec::with_capacity(times);
    for _ in 0..times {
        connections.push(connect(cluster).await?);
    }
    Ok(connections)
}

/// Everything that the server sends until it closes, as text.
pub(crate) async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    // The connection may end with a reset, when the server has not read everything.
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes)).await;
    ensure!(read.is_ok(), "the connection stays open");
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sets the limit of open files of a process.
pub(crate) fn limit_files(process: u32, most: u32) -> anyhow::Result<()> {
    let arguments = [format!("--pid={process}"), format!("--nofile={most}:")];
    ensure!(
        Command::new("prlimit").args(arguments).status()?.success(),
        "prlimit failed"
    );
    Ok(())
}

pub(crate) async fn is_served(cluster: &Cluster) -> anyhow::Result<()> {
    let asked = Instant::now();
    let answer = buy(cluster, "USD", "0.01", &new_key()).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
    ensure!(asked.elapsed() < 3 * A_SECOND, "took {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn two_thousand_idle_connections_disturb_nobody() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    // The service raises its own limit.
    limit_files(std::process::id(), 8192)?;
    let idle = connect_often(&cluster, 2000).await?;
    for _ in 0..20 {
        is_served(&cluster).await?;
    }
    drop(idle);
    is_served(&cluster).await
}

const HEAD: &str = "PUT /buy_order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn slow_headers_and_slow_bodies_are_cut_off() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let headers = async {
        let mut client = connect(&cluster).await?;
        client.write_all(HEAD.as_bytes()).await?;
        read_to_end(&mut client).await
    };
    let body = async {
        let (mut answer, mut sender) = connect(&cluster).await?.into_split();
        sender
            .write_all(format!("{HEAD}content-length: 1000\r\n\r\n").as_bytes())
            .await?;
        let drip = tokio::spawn(async move {
            while sender.write_all(b" ").await.is_ok() {
                tokio::time::sleep(A_SECOND).await;
            }
        });
        let answer = read_to_end(&mut answer).await;
        drip.abort();
        answer
    };
    let (_, body, ()) = tokio::try_join!(headers, body, is_served(&cluster))?;
    ensure!(body.starts_with("HTTP/1.1 408 "), "{body}");
    Ok(())
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_off_at_the_limit() -> anyhow::Result<()> {
    const FAR_TOO_MUCH: usize = 64 * 1024 * 1024;
    let cluster = start_cluster().await?;
    let (mut answer, mut sender) = connect(&cluster).await?.into_split();
    let send = async move {
        let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        let mut sent = 0;
        let mut next = head.as_bytes();
        while sent < FAR_TOO_MUCH && sender.write_all(next).await.is_ok() {
            sent += next.len();
            next = chunk.as_bytes();
        }
        Ok(sent)
    };
    let (sent, answer) = tokio::try_join!(send, read_to_end(&mut answer))?;
    ensure!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    ensure!(sent < FAR_TOO_MUCH, "it was read on and on");
    is_served(&cluster).await
}

#[tokio::test]
async fn garbage_behind_a_request_costs_its_own_connection_only() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let mut client = connect(&cluster).await?;
    client
        .write_all(b"GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n\x16\x03\x01\x02\x00 garbage\r\n\r\n")
        .await?;
    let answers = read_to_end(&mut client).await?;
    ensure!(
        answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 400 "),
        "{answers}"
    );
    let mut client = connect(&cluster).await?;
    client
        .write_all(
            format!(
                "GET /healthcheck HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "x".repeat(200_000)
            )
            .as_bytes(),
        )
        .await?;
    let answer = read_to_end(&mut client).await?;
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    is_served(&cluster).await
}

/// User and system time of a process, in hundredths of a second.
fn cpu_time(process: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
    let times = fields.split(' ').skip(11).take(2);
    Ok(times.map(str::parse::<u64>).sum::<Result<_, _>>()?)
}

#[tokio::test]
async fn out_of_file_descriptors_it_refuses_and_then_recovers() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    is_served(&cluster).await?;
    let service = cluster.pid(Service::CreateBuyOrder).context("no process")?;
    limit_files(service, 64)?;
    let too_many = connect_often(&cluster, 100).await?;
    wait_until("it cannot accept", LIMIT, async || {
        let lines = cluster.output(Service::CreateBuyOrder);
        Ok(lines.iter().any(|line| line.contains("could not be accepted")))
    })
    .await?;
    // From now on it cannot open a lost connection again.
    close_connections(&cluster).await?;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .execute(cluster.write_model())
        .await?;

    let (before, measured) = (cpu_time(service)?, Instant::now());
    tokio::time::sleep(3 * A_SECOND).await;
    let busy_ms = u128::from(cpu_time(service)? - before) * 10;
    let measured_ms = measured.elapsed().as_millis();
    ensure!(
        busy_ms < measured_ms / 2,
        "{busy_ms} ms of processor time for nothing in {measured_ms} ms"
    );

    drop(too_many);
    wait_until("orders are accepted again", LIMIT, async || {
        let answer = buy(&cluster, "USD", "0.01", &new_key()).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(true)
    })
    .await?;
    wait_until("what was accepted is relayed", LIMIT, async || {
        let waiting = count(&cluster, "outbox").await?;
        ensure!(waiting == 0, "{waiting} events in the outbox");
        Ok(true)
    })
    .await?;
    try_join_all((0..20).map(|_| is_served(&cluster))).await?;
    Ok(())
}
