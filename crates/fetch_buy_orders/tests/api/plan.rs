//! Every page costs the same. The tests assert the work of the database, not its duration.

use anyhow::Context as _;
use cluster::plans::{Bounded, Statistics, explain_prepared, keep_within, number};
use cluster::{Cluster, Options};
use fetch_buy_orders::db::{self, PageRequest};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{cluster, external_id, insert, page_after};

const MILLION: i64 = 1_000_000;
const PAGE_SIZE: i64 = 10;

const NEWEST: PageRequest = PageRequest {
    client_id: 1,
    last_reference: None,
    page_size: 10,
};

/// A session with the settings of the service.
async fn session(cluster: &Cluster) -> anyhow::Result<PgConnection> {
    let options = cluster.addresses().read_model.options();
    let options = options.options(common::database::SESSION_SETTINGS);
    Ok(PgConnection::connect_with(&options).await?)
}

/// Prepares the statement as the service does, with a custom or a generic plan.
async fn prepare(session: &mut PgConnection, mode: &str) -> anyhow::Result<()> {
    session.clear_cached_statements().await?;
    let mode = format!("SET plan_cache_mode = {mode}");
    sqlx::raw_sql(AssertSqlSafe(mode)).execute(&mut *session).await?;
    db::pages(session, &[NEWEST]).await?;
    Ok(())
}

/// The plan of a page with the actual rows and blocks of each step.
async fn plan(session: &mut PgConnection, last_reference: Option<i64>) -> anyhow::Result<Value> {
    let last_reference = last_reference.map_or_else(|| "NULL".to_owned(), external_id);
    let values = [
        "{1}",
        &format!("{{{last_reference}}}"),
        &format!("{{{PAGE_SIZE}}}"),
    ];
    let plan = explain_prepared(session, &values).await?;
    // The second child of the join: the orders of the page.
    plan.pointer("/Plans/1").cloned().context("no plan")
}

fn assert_one_range_of_the_page_index(plan: &Value, rows: u64, what: &str) {
    let scan = plan.pointer("/Plans/0").unwrap_or(&Value::Null);
    assert_eq!(plan.get("Node Type"), Some(&json!("Limit")), "{what}: {plan:#}");
    assert_eq!(
        scan.get("Node Type"),
        Some(&json!("Index Scan")),
        "{what}: {plan:#}"
    );
    assert_eq!(
        scan.get("Index Name"),
        Some(&json!("buy_order_read_model_page_idx")),
        "{what}: {plan:#}"
    );
    assert_eq!(number(scan, "Actual Rows"), rows, "{what}: {plan:#}");
    assert_eq!(number(scan, "Rows Removed by Filter"), 0, "{what}: {plan:#}");
    let blocks = number(scan, "Shared Hit Blocks") + number(scan, "Shared Read Blocks");
    // The depth of the index, and at most one block of the table for each row.
    assert!(blocks <= rows + 8, "{what}: {blocks} blocks: {plan:#}");
}

async fn assert_every_page_costs_the_same(connection: &mut PgConnection, when: &str) -> anyhow::Result<()> {
    for (position, last_reference, rows) in [
        ("first", None, PAGE_SIZE),
        ("middle", Some(MILLION / 2), PAGE_SIZE),
        ("last", Some(6), 5),
    ] {
        let plan = plan(connection, last_reference).await?;
        assert_one_range_of_the_page_index(&plan, rows.unsigned_abs(), &format!("{position} page, {when}"));
    }
    Ok(())
}

#[tokio::test]
async fn of_a_million_orders_the_first_page_and_the_last_read_a_few_rows_each() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let mut connection = session(&cluster).await?;
    // As in a service that started with an empty table, and with statistics that say so.
    sqlx::query("ANALYZE").execute(&mut connection).await?;
    prepare(&mut connection, "force_generic_plan").await?;
    // The newest tenth of the orders is another client's: a page must not read them.
    insert(cluster.read_model(), 1, 1..=MILLION * 9 / 10).await?;
    insert(cluster.read_model(), 2, MILLION * 9 / 10 + 1..=MILLION).await?;
    assert_every_page_costs_the_same(&mut connection, "prepared when there were none").await?;
    for statistics in ["without", "with"] {
        if statistics == "with" {
            sqlx::query("VACUUM ANALYZE buy_order_read_model")
                .execute(&mut connection)
                .await?;
        }
        for mode in ["force_custom_plan", "force_generic_plan"] {
            prepare(&mut connection, mode).await?;
            let when = format!("{mode}, {statistics} statistics");
            assert_every_page_costs_the_same(&mut connection, &when).await?;
        }
    }
    connection.close().await?;

    let answer = page_after(&cluster, 11, 10).await?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.ids(), (1..=10).rev().map(external_id).collect::<Vec<_>>());
    Ok(())
}

const ORDERS: i64 = 50_000;

/// Half of them are another client's: a page must not read a whole table, nor all orders of a client.
const FILL: &str = "
    INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount)
    SELECT id, ('00000000-0000-4000-8000-' || lpad(to_hex(id), 12, '0'))::uuid, 1 + id % 2, now(), 1, 'USD', 123.4, 48478.88, 0.00254647
      FROM generate_series(1, 50000) AS id";

#[tokio::test]
async fn whatever_was_known_of_the_table_a_page_looks_at_its_rows_alone() -> anyhow::Result<()> {
    for statistics in Statistics::ALL {
        let cluster = Cluster::start(Options {
            services: Vec::new(),
            ..Options::default()
        })
        .await?;
        let model = cluster.read_model();
        statistics.set(model, FILL).await?;
        let mut session = session(&cluster).await?;
        db::pages(&mut session, &[NEWEST]).await?;
        statistics.fill(model, FILL).await?;
        // The client's first order, one in the middle, another client's, an unknown one, and the newest page.
        for (reference, rows) in [
            (Some(external_id(2)), 1),
            (Some(external_id(ORDERS / 2)), 10),
            (Some(external_id(ORDERS / 2 + 1)), 10),
            (Some(external_id(ORDERS + 1)), 1),
            (None, 10),
        ] {
            let reference = format!("{{{}}}", reference.as_deref().unwrap_or("NULL"));
            let page = Bounded::new("WITH ORDINALITY AS asked", &["{1}", &reference, "{10}"], rows);
            keep_within(&mut session, &[page])
                .await
                .with_context(|| format!("statistics: {statistics:?}"))?;
        }
    }
    Ok(())
}
