//! What clients say of themselves: whom `entry` believes, and what it passes on and logs.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;

use super::haproxy::{Client, Entry, echo};

const LIMIT: Duration = Duration::from_secs(30);

/// The values of a header in a head.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers
        .filter(|(given, _)| given.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn the_address_of_a_client_comes_from_its_connection_or_from_a_trusted_proxy() -> anyhow::Result<()> {
    let service = echo().await?;
    let trusted = [("ENTRY_TRUSTED_PROXIES", "127.0.0.9 127.0.5.0/24")];
    let entry = Entry::start(&service, &service, &trusted).await?;
    let (stranger, proxy, network) = (Client::new(0, 2), Client::new(0, 9), Client::new(5, 1));
    let own = "X-Forwarded-For: 203.0.113.7\r\n";
    let list = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 6.6.6.7, 203.0.113.7\r\n";
    let nonsense = "X-Forwarded-For: somebody\r\n";
    for (client, headers, expected) in [
        (stranger, own, "127.0.0.2"),
        (stranger, list, "127.0.0.2"),
        (stranger, "", "127.0.0.2"),
        (proxy, own, "203.0.113.7"),
        (proxy, list, "203.0.113.7"),
        (network, own, "203.0.113.7"),
        (proxy, "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
        (proxy, nonsense, "127.0.0.9"),
        (proxy, "", "127.0.0.9"),
    ] {
        let answer = client.ask(&entry.orders, "/", headers).await?;
        let passed_on = values(&answer.body, "x-forwarded-for");
        ensure!(passed_on == [expected], "{client:?} {headers}: {answer:?}");
        wait_until("the log has the client", LIMIT, async || {
            Ok(entry.log()?.last().context("no line")?["client"] == expected)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_limits_count_the_client_that_it_names() -> anyhow::Result<()> {
    let service = echo().await?;
    let settings = [
        ("ENTRY_TRUSTED_PROXIES", "127.0.0.9"),
        ("ENTRY_REQUESTS_PER_10S", "5"),
        ("ENTRY_CONNECTIONS_PER_CLIENT", "2"),
    ];
    let entry = Entry::start(&service, &service, &settings).await?;
    let proxy = Client::new(0, 9);
    // More connections than a client may have.
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(proxy.connect(&entry.orders).await?);
    }
    let ask = async |named: String| {
        let headers = format!("X-Forwarded-For: {named}\r\n");
        Ok::<_, anyhow::Error>(proxy.ask(&entry.orders, "/", &headers).await?.status)
    };
    // The addresses of one network of IPv6 are one client, those of IPv4 are not, in either notation.
    for (one_client, name) in [
        (true, "2001:db8:0:1::"),
        (false, "203.0.113."),
        (false, "::ffff:198.51.100."),
    ] {
        let mut refused = 0;
        for number in 1..=8 {
            match ask(format!("{name}{number}")).await? {
                429 => refused += 1,
                status => ensure!(status == 200, "{status}"),
            }
        }
        ensure!(refused == if one_client { 3 } else { 0 }, "{name}: {refused}");
    }
    ensure!(ask("2001:db8:0:2::1".to_owned()).await? == 200);
    Ok(())
}

#[tokio::test]
async fn a_trace_context_reaches_the_service_from_trusted_callers_only() -> anyhow::Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders])).await?;
    let pages = cluster.url(Service::FetchBuyOrders);
    let trusted = [("ENTRY_TRUSTED_TRACERS", "127.0.0.9")];
    let entry = Entry::start(&pages, &pages, &trusted).await?;
    for (client, is_kept) in [(Client::new(0, 2), false), (Client::new(0, 9), true)] {
        let id = format!("from-{}", client.0);
        let context = format!(
            "traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\nX-Request-Id: {id}\r\n"
        );
        let answer = client.ask(&entry.pages, "/buy_orders", &context).await?;
        ensure!(
            answer.status == 200 && answer.header("x-request-id") == Some(&id),
            "{answer:?}"
        );
        let mut event = Value::Null;
        wait_until("the service logs the request", LIMIT, async || {
            let events = cluster.logs(Service::FetchBuyOrders);
            let of_request = events
                .into_iter()
                .find(|event| event["request_id"] == id.as_str());
            event = of_request.context("no event")?;
            Ok(true)
        })
        .await?;
        ensure!((event["trace_id"] == TRACE) == is_kept, "{event}");
    }
    let service = echo().await?;
    let entry = Entry::start(&service, &service, &[]).await?;
    let context = "traceparent: a\r\nTraceParent: b\r\ntracestate: c=d\r\ntracestate: e=f\r\n";
    let answer = Client::new(0, 2).ask(&entry.pages, "/", context).await?;
    ensure!(!answer.body.to_lowercase().contains("trace"), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn each_request_is_one_line_of_the_log_without_secrets_and_health_checks_are_none() -> anyhow::Result<()>
{
    let service = echo().await?;
    let entry = Entry::start(&service, &service, &[("ENTRY_REQUESTS_PER_10S", "4")]).await?;
    let client = Client::new(0, 2);
    for _ in 0..3 {
        client.ask(&entry.health, "/healthcheck", "").await?;
    }
    client.ask(&entry.orders, "/healthcheck", "").await?;
    let long = format!("/{}", "\"".repeat(4_000));
    let refused = {
        client
            .ask(&entry.pages, "/a\"b\\c?token=secret", "Authorization: secret\r\n")
            .await?;
        client.ask(&entry.orders, &long, "").await?;
        client.ask(&entry.orders, "/metrics", "").await?;
        client.ask(&entry.orders, "/buy_order?secret", "").await?
    };
    ensure!(refused.status == 429, "{refused:?}");
    client.send(&entry.orders, "no request\r\n\r\n").await?;
    wait_until("all lines are there", LIMIT, async || Ok(entry.log()?.len() >= 5)).await?;
    ensure!(!entry.log_text()?.contains("secret"), "{}", entry.log_text()?);

    let lines = entry.log()?;
    let id = refused.header("x-request-id").context("no id")?;
    let long: String = long.chars().take(512).collect();
    for (line, port, path, status, id) in [
        (&lines[0], "fetch_buy_orders", "/a\"b\\c", 200, Some("a\"b\\c")),
        (&lines[1], "create_buy_order", long.as_str(), 200, None),
        (&lines[2], "create_buy_order", "/metrics", 404, None),
        (&lines[3], "create_buy_order", "/buy_order", 429, Some(id)),
        (&lines[4], "create_buy_order", "-", 400, None),
    ] {
        ensure!(
            line["event"] == "request_answered"
                && line["service"] == "entry"
                && line["client"] == "127.0.0.2"
                && line["port"] == port
                && line["path"] == path
                && line["status"] == status
                && line["total_ms"].is_u64()
                && line["bytes_in"].is_u64()
                && line["bytes_out"].is_u64(),
            "{line}"
        );
        ensure!(id.is_none_or(|id| line["request_id"] == id), "{line}");
    }
    ensure!(lines.len() == 5 && lines[0]["method"] == "GET", "{lines:?}");
    Ok(())
}
