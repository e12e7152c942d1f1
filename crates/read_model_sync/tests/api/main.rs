//! The projection from outside: messages go in through the broker, rows and dead letters come out. Real binary, real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod broker;
mod dead_letter_commands;
mod dead_letters;
mod large_messages;
mod metrics;
mod outages;
mod plans;
mod projection;
mod refused_letters;
mod topology;
mod void_checksums;
mod voids;

use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::{Value, json};

/// Generous, because other tests may be using the machine, and a supervisor pauses for up to 8 s.
const LIMIT: Duration = Duration::from_secs(90);

async fn projection() -> anyhow::Result<Cluster> {
    Cluster::start(Options::only(&[Service::ReadModelSync])).await
}

async fn projection_with_own_servers() -> anyhow::Result<Cluster> {
    Cluster::start(Options::only(&[Service::ReadModelSync]).with_own_servers()).await
}

/// The event of order `id`, as `create_buy_order` writes it; different in every field for different ids.
fn event(id: i64) -> Value {
    json!({
        "id": id,
        "client_id": 1,
        "external_id": external_id(id),
        "created_at": format!("2026-11-23T15:{:02}:{:02}.{:06}Z", id / 60 % 60, id % 60, id),
        "currency_id": 1 + id % 3,
        "currency_iso3": match id % 3 { 0 => "USD", 1 => "GBP", _ => "EUR" },
        "currency_amount": format!("{id}.45"),
        "btc_rate": format!("{}.88000000", 48_478 + id),
        "btc_amount": format!("0.{:08}", 254_647 + id),
    })
}

/// The event that order `id` was voided.
fn void_event(id: i64) -> Value {
    json!({
        "id": id,
        "external_id": external_id(id),
        "reason": format!("fat finger {id}"),
        "voided_at": format!("2026-11-28T15:{:02}:{:02}.{:06}Z", id / 60 % 60, id % 60, id),
    })
}

fn external_id(id: i64) -> String {
    format!("3b14efb6-041f-4d31-b35a-{id:012}")
}

/// A row of the read model as text, in the columns' own scale.
type Row = (i64, i64, String, String, i64, String, String, String, String);

async fn rows(cluster: &Cluster) -> anyhow::Result<Vec<Row>> {
    Ok(sqlx::query_as(
        r#"SELECT id, client_id, external_id::text,
                  to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                  currency_id, currency_iso3::text, currency_amount::text, btc_rate::text, btc_amount::text
           FROM buy_order_read_model
           ORDER BY id"#,
    )
    .fetch_all(cluster.read_model())
    .await?)
}

/// The row that an event becomes.
fn row(event: &Value) -> Row {
    let number = |name: &str| event[name].as_i64().unwrap();
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (
        number("id"),
        number("client_id"),
        text("external_id"),
        text("created_at"),
        number("currency_id"),
        text("currency_iso3"),
        text("currency_amount"),
        text("btc_rate"),
        text("btc_amount"),
    )
}

async fn row_count(cluster: &Cluster) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
        .fetch_one(cluster.read_model())
        .await?)
}

async fn rows_appear(cluster: &Cluster, expected: i64) -> anyhow::Result<()> {
    wait_until(&format!("{expected} rows in the read model"), LIMIT, async || {
        let found = row_count(cluster).await?;
        anyhow::ensure!(found == expected, "{found} rows; {}", last_lines(cluster));
        Ok(true)
    })
    .await
}

fn last_lines(cluster: &Cluster) -> String {
    let lines = cluster.output(Service::ReadModelSync);
    lines[lines.len().saturating_sub(5)..].join("\n")
}

async fn logged(cluster: &Cluster, event: &str) -> anyhow::Result<()> {
    wait_until(&format!("the event {event}"), LIMIT, async || {
        Ok(cluster
            .logs(Service::ReadModelSync)
            .iter()
            .any(|line| line["event"] == event))
    })
    .await
}
