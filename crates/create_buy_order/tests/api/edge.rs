//! Edge cases of HTTP: half-closed connections, malformed requests, `Host`, `Expect`. Every answer has our form.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connections::{connect, read_to_end};
use super::{count, new_key, start_cluster};

const LIMIT: Duration = Duration::from_secs(30);

/// An answer, as received.
#[derive(Debug)]
struct Raw {
    status: u16,
    head: String,
    body: String,
}

fn parsed(text: &str) -> anyhow::Result<Raw> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Raw {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Sends this, and reads until the server closes the connection.
async fn ask(cluster: &Cluster, words: &[u8]) -> anyhow::Result<Raw> {
    let mut client = connect(cluster).await?;
    client.write_all(words).await?;
    parsed(&read_to_end(&mut client).await?)
}

fn ensure_our_form(answer: &Raw) -> anyhow::Result<()> {
    let id = answer
        .head
        .lines()
        .filter_map(|line| line.strip_prefix("x-request-id: "));
    ensure!(id.count() == 1, "not one request id: {answer:?}");
    ensure!(
        answer.head.contains("\r\ncontent-type: application/json"),
        "not JSON: {answer:?}"
    );
    let body: Value = serde_json::from_str(&answer.body).with_context(|| format!("{answer:?}"))?;
    ensure!(!body["detail"].is_null(), "no detail: {answer:?}");
    Ok(())
}

/// The sum of a counter over the series whose labels contain this text.
async fn counted(cluster: &Cluster, metric: &str, label: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for line in super::metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await? {
        if line.starts_with(metric) && line.contains(label) {
            sum += line.rsplit(' ').next().context("no value")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

fn order(key: &str) -> String {
    let body = cluster::order_with_key("USD", "0.01", key).to_string();
    format!(
        "PUT /buy_order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_client_that_ends_its_side_after_the_request_gets_the_answer() -> anyhow::Result<()> {
    const TIMES: usize = 40;
    let cluster = start_cluster().await?;
    for number in 0..TIMES {
        for words in [
            order(&new_key()),
            "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        ] {
            let mut client = connect(&cluster).await?;
            client.write_all(words.as_bytes()).await?;
            client.shutdown().await?;
            let answer = parsed(&read_to_end(&mut client).await?)?;
            ensure!(answer.status == 200, "{number}: {answer:?}");
        }
    }
    ensure!(count(&cluster, "buy_order").await? == i64::try_from(TIMES)?);
    let (begun, detail) = ("PUT /buy_order HTTP/1.1\r\nhost: x\r\n", "headers broke off");
    for (words, detail) in [
        (begun.to_owned(), detail),
        (
            format!("{begun}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{"),
            "could not be read",
        ),
    ] {
        let mut client = connect(&cluster).await?;
        client.write_all(words.as_bytes()).await?;
        client.shutdown().await?;
        let answer = parsed(&read_to_end(&mut client).await?)?;
        ensure!(
            answer.status == 400 && answer.body.contains(detail),
            "{words:?}: {answer:?}"
        );
        ensure_our_form(&answer)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_request_of_a_client_that_resets_its_connection_is_dropped() -> anyhow::Result<()> {
    const CLIENTS: u64 = 20;
    let cluster = start_cluster().await?;
    // Orders now wait seconds for a price.
    cluster.pause(Service::BtcPrice)?;
    let in_hand = async || counted(&cluster, "http_requests_in_flight ", "").await;
    let open = async || counted(&cluster, "http_connections_open ", "").await;
    let before = open().await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = connect(&cluster).await?;
        client.write_all(order(&new_key()).as_bytes()).await?;
        clients.push(client);
    }
    wait_until("all are in hand", LIMIT, async || Ok(in_hand().await? > CLIENTS)).await?;
    for client in clients {
        client.set_zero_linger()?;
    }
    let reset = Instant::now();
    wait_until("none is in hand", LIMIT, async || {
        Ok(in_hand().await? <= 1 && open().await? <= before)
    })
    .await?;
    // Shorter than an order waits for its price.
    ensure!(
        reset.elapsed() < Duration::from_millis(1500),
        "took {:?}",
        reset.elapsed()
    );
    cluster.resume(Service::BtcPrice)
}

#[tokio::test]
async fn connections_of_clients_that_are_gone_are_closed() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let open = async || counted(&cluster, "http_connections_open ", "").await;
    let before = open().await?;
    for words in [
        String::new(),
        "GET /healthcheck HTTP/1.1\r\n".to_owned(),
        "GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        order(&new_key()),
        "garbage\r\n\r\n".to_owned(),
    ] {
        for _ in 0..20 {
            let mut client = connect(&cluster).await?;
            client.write_all(words.as_bytes()).await?;
        }
    }
    wait_until("all are closed", LIMIT, async || Ok(open().await? <= before)).await
}

#[tokio::test]
async fn words_that_are_no_request_are_refused_in_our_form_and_counted() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let get = |more: &str| format!("GET /healthcheck HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    let many_headers: String = (0..101).map(|number| format!("h{number}: 1\r\n")).collect();
    let put = "PUT /buy_order HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let cases: [(u16, Vec<u8>); 13] = [
        (
            400,
            b"GET /buy_order?x=\"a\" HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
        (400, b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        (400, b"nonsense\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/3.7\r\nhost: x\r\n\r\n".to_vec()),
        (
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        ),
        (400, get("ba d: 1\r\n").into_bytes()),
        (
            400,
            format!("{put}content-length: 1\r\ncontent-length: 2\r\n\r\nab").into_bytes(),
        ),
        (400, format!("{put}transfer-encoding: gzip\r\n\r\n").into_bytes()),
        (
            501,
            format!("{put}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n").into_bytes(),
        ),
        (
            414,
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)).into_bytes(),
        ),
        (431, get(&many_headers).into_bytes()),
        (431, get(&format!("x: {}\r\n", "x".repeat(100_000))).into_bytes()),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    let refused = cases.len();
    for (status, words) in cases {
        let shown = String::from_utf8_lossy(&words[..words.len().min(60)]).into_owned();
        let answer = ask(&cluster, &words).await.context(shown.clone())?;
        ensure!(answer.status == status, "{shown:?}: {answer:?}");
        ensure!(
            answer.head.contains("\r\nconnection: close"),
            "{shown:?}: {answer:?}"
        );
        ensure_our_form(&answer).context(shown)?;
    }
    let answered = counted(&cluster, "http_requests_total{", "status=\"4").await?
        + counted(&cluster, "http_requests_total{", "status=\"5").await?;
    ensure!(answered == refused as u64, "{answered} of {refused} are counted");
    Ok(())
}

#[tokio::test]
async fn a_request_has_one_host() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    for hosts in [
        "",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nhost: a\r\n",
        "host: a b/c\r\n",
    ] {
        let words = format!("GET /healthcheck HTTP/1.1\r\nconnection: close\r\n{hosts}\r\n");
        let answer = ask(&cluster, words.as_bytes()).await?;
        ensure!(answer.status == 400, "{hosts:?}: {answer:?}");
        ensure_our_form(&answer)?;
    }
    let old = ask(&cluster, b"GET /healthcheck HTTP/1.0\r\n\r\n").await?;
    ensure!(old.status == 200, "{old:?}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_will_be_refused_is_not_asked_for() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let put = "PUT /buy_order HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n";
    for (status, headers) in [
        (
            413,
            "content-type: application/json\r\ncontent-length: 5000000\r\n",
        ),
        (422, "content-type: text/plain\r\ncontent-length: 50\r\n"),
        (422, "content-length: 50\r\n"),
        (422, "content-type: text/plain\r\ntransfer-encoding: chunked\r\n"),
    ] {
        let asked = Instant::now();
        let answer = ask(&cluster, format!("{put}{headers}\r\n").as_bytes()).await?;
        ensure!(answer.status == status, "{headers}: {answer:?}");
        ensure!(
            asked.elapsed() < Duration::from_secs(2),
            "took {:?}",
            asked.elapsed()
        );
        ensure!(answer.head.contains("\r\nconnection: close"), "{answer:?}");
        ensure_our_form(&answer)?;
    }
    // A valid body is requested with `100 Continue`.
    let order = order(&new_key()).replace("host: x\r\n", "host: x\r\nexpect: 100-continue\r\n");
    let (head, body) = order.split_once("\r\n\r\n").context("no body")?;
    let mut client: TcpStream = connect(&cluster).await?;
    client.write_all(format!("{head}\r\n\r\n").as_bytes()).await?;
    let mut interim = [0; 25];
    timeout(LIMIT, client.read_exact(&mut interim)).await??;
    ensure!(interim.starts_with(b"HTTP/1.1 100 "), "{interim:?}");
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await?;
    let answer = parsed(&read_to_end(&mut client).await?)?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// The rest of the body is read after the answer. Otherwise the connection would end, and with it the client's next request.
#[tokio::test]
async fn a_connection_serves_the_next_request_after_a_body_that_was_refused() -> anyhow::Result<()> {
    const TOO_LARGE: usize = 5_000_000;
    let cluster = start_cluster().await?;
    let mut client = connect(&cluster).await?;
    let head = format!(
        "PUT /buy_order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {TOO_LARGE}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(&vec![b' '; TOO_LARGE]).await?;
    let last = order(&new_key()).replace("host: x\r\n", "host: x\r\nconnection: close\r\n");
    client.write_all(last.as_bytes()).await?;
    let answers = read_to_end(&mut client).await?;
    ensure!(
        answers.starts_with("HTTP/1.1 413 ") && answers.contains("HTTP/1.1 200 "),
        "{answers}"
    );
    ensure!(count(&cluster, "buy_order").await? == 1);
    Ok(())
}
