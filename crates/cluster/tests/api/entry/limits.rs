//! What one client may take, and what is left for others.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Options, Service, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::haproxy::{Client, Entry, echo, raise_limit_of_files};

const LIMIT: Duration = Duration::from_secs(60);

/// In front of a real service, which limits its connections, too.
async fn start() -> anyhow::Result<(Cluster, Entry)> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders])).await?;
    let pages = cluster.url(Service::FetchBuyOrders);
    let entry = Entry::start(&pages, &pages, &[]).await?;
    Ok((cluster, entry))
}

async fn start_with(settings: &[(&str, &str)]) -> anyhow::Result<Entry> {
    let service = echo().await?;
    Entry::start(&service, &service, settings).await
}

/// Connections of these clients that send `beginning` and no more. Those that are refused or have to wait are left out.
async fn hold_connections(
    clients: impl Iterator<Item = Client>,
    url: &str,
    beginning: &'static str,
) -> Vec<TcpStream> {
    let mut tasks = JoinSet::new();
    for client in clients {
        let url = url.to_owned();
        tasks.spawn(async move {
            let mut stream = client.connect(&url).await?;
            stream.write_all(beginning.as_bytes()).await?;
            anyhow::Ok(stream)
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// A client that has no other connections is served at once.
async fn is_served(client: Client, url: &str) -> anyhow::Result<()> {
    for path in ["/healthcheck", "/buy_orders"] {
        let answer = client.ask(url, path, "").await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

async fn is_healthy(entry: &Entry) -> anyhow::Result<()> {
    let answer = Client::new(0, 1).ask(&entry.health, "/healthcheck", "").await?;
    ensure!(
        (answer.status, answer.body.as_str()) == (200, "null"),
        "{answer:?}"
    );
    Ok(())
}

/// Whether the connection is closed before anything was sent or answered.
async fn is_refused(client: Client, url: &str) -> anyhow::Result<()> {
    // It may be closed before `connect` returns.
    if let Ok(mut stream) = client.connect(url).await {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await?;
        ensure!(!matches!(read, Ok(1..)), "an answer");
    }
    Ok(())
}

#[tokio::test]
async fn slow_connections_of_one_client_leave_others_and_the_health_check_served() -> anyhow::Result<()> {
    const CONNECTIONS: usize = 2_050;
    raise_limit_of_files()?;
    let (_cluster, entry) = start().await?;
    let (slow, other) = (Client::new(0, 2), Client::new(0, 3));
    let slow_ones = || std::iter::repeat_n(slow, CONNECTIONS);
    let half = "PUT /buy_order HTTP/1.1\r\nHost: entry\r\nContent-";
    let _idle = hold_connections(slow_ones(), &entry.orders, "").await;
    let _unfinished = hold_connections(slow_ones(), &entry.pages, half).await;
    is_healthy(&entry).await?;
    is_served(other, &entry.orders).await?;
    is_served(other, &entry.pages).await?;
    is_refused(slow, &entry.pages).await
}

#[tokio::test]
async fn idle_connections_of_many_clients_on_one_port_leave_the_other_and_the_health_check_served()
-> anyhow::Result<()> {
    // Together more than HAProxy takes on all ports.
    const CLIENTS: u8 = 50;
    const CONNECTIONS: usize = 90;
    raise_limit_of_files()?;
    let (_cluster, entry) = start().await?;
    let clients = (1..=CLIENTS).flat_map(|number| std::iter::repeat_n(Client::new(1, number), CONNECTIONS));
    let idle = hold_connections(clients, &entry.pages, "").await;
    ensure!(idle.len() >= 2_000, "only {} connections are open", idle.len());
    is_healthy(&entry).await?;
    is_served(Client::new(0, 3), &entry.orders).await
}

#[tokio::test]
async fn a_client_that_closes_its_connections_is_served_again() -> anyhow::Result<()> {
    let entry = start_with(&[("ENTRY_CONNECTIONS_PER_CLIENT", "3")]).await?;
    let client = Client::new(0, 2);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = client.connect(&entry.pages).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: entry\r\n\r\n").await?;
        ensure!(stream.read(&mut [0; 1024]).await? > 0, "no answer");
        open.push(stream);
    }
    is_refused(client, &entry.orders).await?;
    is_served(Client::new(0, 3), &entry.orders).await?;
    drop(open);
    wait_until("the client is served", LIMIT, async || {
        is_served(client, &entry.orders).await?;
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn too_many_requests_of_one_client_are_refused_until_the_rate_is_low_again() -> anyhow::Result<()> {
    let entry = start_with(&[("ENTRY_REQUESTS_PER_10S", "5")]).await?;
    let (busy, other) = (Client::new(0, 2), Client::new(0, 3));
    let mut statuses = BTreeMap::new();
    for url in [&entry.orders, &entry.pages].into_iter().cycle().take(12) {
        *statuses
            .entry(busy.status(url, "/buy_orders").await?)
            .or_default() += 1;
    }
    ensure!(statuses == BTreeMap::from([(200, 5), (429, 7)]), "{statuses:?}");

    let body = "x".repeat(16_384);
    let order = format!(
        "PUT /buy_order HTTP/1.1\r\nHost: entry\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answers = [
        busy.ask(&entry.pages, "/buy_orders", "").await?,
        busy.send(&entry.orders, &order).await?,
    ];
    for answer in answers {
        ensure!(answer.status == 429, "{answer:?}");
        ensure!(answer.header("retry-after") == Some("10"), "{answer:?}");
        ensure!(answer.detail()?.contains("too many requests"), "{answer:?}");
    }
    is_served(other, &entry.pages).await?;
    // The refused requests of this loop do not prolong it.
    wait_until("the client is served again", LIMIT, async || {
        Ok(busy.status(&entry.pages, "/buy_orders").await? == 200)
    })
    .await
}

#[tokio::test]
async fn no_limits_can_be_chosen() -> anyhow::Result<()> {
    // What compose makes of empty variables.
    let unlimited = [
        ("ENTRY_CONNECTIONS_PER_CLIENT", "1000000"),
        ("ENTRY_REQUESTS_PER_10S", "1000000000"),
    ];
    let entry = start_with(&unlimited).await?;
    let client = Client::new(0, 2);
    let idle = hold_connections(std::iter::repeat_n(client, 150), &entry.pages, "").await;
    ensure!(idle.len() == 150, "{}", idle.len());
    is_served(client, &entry.pages).await
}
