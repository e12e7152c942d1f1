//! One order with all fields set, from the answer to the page. This finds a field that a service drops or changes on the way, also in
//! a column that is added later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgPool};

const LIMIT: Duration = Duration::from_secs(60);

/// Columns that pages and answers do not show.
const INTERNAL: [&str; 3] = ["id", "client_id", "currency_id"];

/// Columns that only the write model has.
const OF_THE_REQUEST: &str = "idempotence_key";

/// A column that only a void sets, which the event of an order does not have.
const OF_THE_VOID: &str = "voided_at";

/// Columns with other names in pages and answers.
const RENAMED: [(&str, &str); 2] = [("external_id", "id"), ("currency_iso3", "currency")];

/// The columns of a table with their types, from `information_schema`.
async fn columns(model: &PgPool, table: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = $1",
    )
    .bind(table)
    .fetch_all(model)
    .await?;
    anyhow::ensure!(!columns.is_empty(), "there is no table {table}");
    Ok(columns.into_iter().collect())
}

/// The only row of a query, with each column in the form of events.
async fn row(model: &PgPool, query: &str) -> anyhow::Result<Map<String, Value>> {
    let wrapped = format!("SELECT to_jsonb(found)::text FROM ({query}) AS found");
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(wrapped))
        .fetch_all(model)
        .await?;
    let [row] = rows.as_slice() else {
        anyhow::bail!("not one row: {rows:?}")
    };
    Ok(serde_json::from_str(row)?)
}

/// Selects every column of a table in the form of events: decimals as texts, times in RFC 3339, others unchanged.
fn in_the_form_of_events(table: &str, columns: &BTreeMap<String, String>) -> String {
    let selected: Vec<String> = columns
        .iter()
        .map(|(name, kind)| match kind.as_str() {
            "numeric" => format!("{table}.{name}::text AS {name}"),
            "timestamp with time zone" => {
                format!("to_char({table}.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS {name}")
            }
            _ => format!("{table}.{name}"),
        })
        .collect();
    selected.join(", ")
}

/// A statement that changes one column of the read model.
fn change(column: &str, kind: &str) -> anyhow::Result<String> {
    let other = match kind {
        "bigint" | "integer" | "smallint" => format!("{column} + 1"),
        "numeric" => format!("{column} + 0.01"),
        "uuid" => "gen_random_uuid()".to_owned(),
        "timestamp with time zone" => format!("coalesce({column}, created_at) + interval '1 microsecond'"),
        "character" => format!("repeat('X', length({column}::text))"),
        "text" | "character varying" => format!("reverse({column}) || 'x'"),
        "boolean" => format!("NOT {column}"),
        _ => anyhow::bail!("teach this test another value of type {kind}, for the column {column}"),
    };
    Ok(format!("UPDATE buy_order_read_model SET {column} = {other}"))
}

async fn execute(model: &PgPool, statement: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(model)
        .await?;
    Ok(())
}

/// The fields of an order in an answer or a page, under the names of the columns.
fn by_column(shown: &Value) -> anyhow::Result<Map<String, Value>> {
    let shown = shown.as_object().context("no order")?;
    let column = |field: &str| {
        let renamed = RENAMED.iter().find(|(_, shown)| *shown == field);
        renamed.map_or(field, |(column, _)| column).to_owned()
    };
    Ok(shown
        .iter()
        .map(|(field, value)| (column(field), value.clone()))
        .collect())
}

async fn page(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
    let page: Value = cluster
        .http()
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(page["rows"].as_array().cloned().unwrap_or_default())
}

/// An order whose fields all differ, and its event, which is read before the projector starts.
async fn order_and_event(cluster: &Cluster) -> anyhow::Result<(Value, Map<String, Value>)> {
    // Ids that differ from all others.
    execute(
        cluster.write_model(),
        "ALTER TABLE buy_order ALTER COLUMN id RESTART WITH 7001",
    )
    .await?;
    let put = cluster.put_order(&cluster::new_order("EUR", "123.45"));
    let answer: Value = put.send().await?.error_for_status()?.json().await?;
    let mut event = Map::new();
    wait_until("the event is in the queue", LIMIT, async || {
        let messages = cluster.peek_messages("buy_order", 2).await?;
        let [message] = messages.as_slice() else {
            return Ok(false);
        };
        event = serde_json::from_slice(&message.payload)?;
        Ok(true)
    })
    .await?;
    Ok((answer["buy_order"].clone(), event))
}

#[tokio::test]
async fn an_order_is_the_same_in_its_answer_its_event_its_row_its_page_and_its_checksum() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::default()).await?;
    let read_model = cluster.read_model();
    cluster.stop(Service::ReadModelSync).await?;
    let (answer, event) = order_and_event(&cluster).await?;
    cluster.start_service(Service::ReadModelSync).await?;
    wait_until("the order is in a page", LIMIT, async || {
        Ok(page(&cluster).await?.len() == 1)
    })
    .await?;

    // Every column is set, and the event has no other keys.
    let mut columns = columns(read_model, "buy_order_read_model").await?;
    let of_the_void = columns.remove(OF_THE_VOID).context("no column of the void")?;
    let stored = row(
        read_model,
        &format!(
            "SELECT {} FROM buy_order_read_model",
            in_the_form_of_events("buy_order_read_model", &columns)
        ),
    )
    .await?;
    assert!(
        stored.values().all(|value| !value.is_null()),
        "set every field: {stored:?}"
    );
    assert_eq!(stored, event, "the row and the event");
    let values: BTreeSet<String> = event.values().map(Value::to_string).collect();
    assert_eq!(
        values.len(),
        event.len(),
        "no two fields have the same value: {event:?}"
    );

    // The write model has no other column that the read model lacks.
    let mut of_orders = self::columns(cluster.write_model(), "buy_order").await?;
    assert!(of_orders.remove(OF_THE_REQUEST).is_some(), "{of_orders:?}");
    let written = row(
        cluster.write_model(),
        &format!(
            "SELECT {}, currency.iso3 AS currency_iso3 FROM buy_order JOIN currency ON currency.id = buy_order.currency_id",
            in_the_form_of_events("buy_order", &of_orders)
        ),
    )
    .await?;
    assert_eq!(written, event, "the order and the event");

    // What clients see.
    let pages = page(&cluster).await?;
    assert_eq!(pages, std::slice::from_ref(&answer), "the page and the answer");
    let mut shown = event.clone();
    shown.retain(|column, _| !INTERNAL.contains(&column.as_str()));
    assert_eq!(by_column(&answer)?, shown, "the answer and the event");

    columns.insert(OF_THE_VOID.to_owned(), of_the_void);
    every_column_counts_in_the_checksum(&cluster, &columns).await
}

async fn every_column_counts_in_the_checksum(
    cluster: &Cluster,
    columns: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    let checksums = cluster
        .admin(Service::CreateBuyOrder, &["checksums"], "")
        .await?
        .stdout;
    let verify = async || {
        let arguments = ["verify", "--wait", "0"];
        cluster
            .admin(Service::ReadModelSync, &arguments, &checksums)
            .await
    };
    let read_model = cluster.read_model();
    execute(read_model, "CREATE TABLE kept AS TABLE buy_order_read_model").await?;
    for (column, kind) in columns {
        execute(read_model, &change(column, kind)?).await?;
        let ended = verify().await?;
        assert_eq!(ended.code, Some(1), "a change of {column} is not seen: {ended:?}");
        execute(
            read_model,
            "TRUNCATE buy_order_read_model; INSERT INTO buy_order_read_model TABLE kept",
        )
        .await?;
    }
    let ended = verify().await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(())
}
