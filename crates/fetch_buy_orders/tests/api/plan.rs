//! Every page costs the same. The tests assert the work of the database, not its duration.

use std::ops::RangeInclusive;

use anyhow::Context as _;
use cluster::plans::{Bounded, Statistics, explain_prepared, keep_within, number};
use cluster::{Cluster, Options};
use fetch_buy_orders::db::{self, OrderReference, PageRequest};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

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
        Some(&json!("buy_order_read_model_shown_idx")),
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

/// Voids orders as the projector does.
async fn void(read_model: &PgPool, ids: RangeInclusive<i64>) -> anyhow::Result<()> {
    sqlx::query("UPDATE buy_order_read_model SET voided_at = now() WHERE id BETWEEN $1 AND $2")
        .bind(ids.start())
        .bind(ids.end())
        .execute(read_model)
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_page_behind_thousands_of_voided_orders_reads_a_few_rows() -> anyhow::Result<()> {
    const SHOWN: i64 = 1000;
    const ALL: i64 = 31_000;
    let cluster = cluster().await?;
    // An autovacuum would come at a time of its own.
    sqlx::query("ALTER TABLE buy_order_read_model SET (autovacuum_enabled = off)")
        .execute(cluster.read_model())
        .await?;
    sqlx::query("ANALYZE").execute(cluster.read_model()).await?;
    let mut connection = session(&cluster).await?;
    prepare(&mut connection, "force_generic_plan").await?;
    insert(cluster.read_model(), 1, 1..=ALL).await?;
    void(cluster.read_model(), SHOWN + 1..=ALL).await?;

    let pages = [("first", None), ("behind a voided order", Some(ALL - 1))];
    // The index still has the voided orders until it is vacuumed. Who reads it first looks at each of them, and marks it as dead for the next.
    for (_, reference) in pages {
        plan(&mut connection, reference).await?;
    }
    for (name, reference) in pages {
        let plan = plan(&mut connection, reference).await?;
        let blocks = number(&plan, "Shared Hit Blocks") + number(&plan, "Shared Read Blocks");
        assert!(
            blocks < (ALL / 30).unsigned_abs(),
            "{name}, before VACUUM: {blocks} blocks: {plan:#}"
        );
    }
    for statistics in ["without", "with"] {
        let vacuum = if statistics == "with" {
            "VACUUM ANALYZE"
        } else {
            "VACUUM"
        };
        sqlx::raw_sql(vacuum).execute(&mut connection).await?;
        for mode in ["force_custom_plan", "force_generic_plan"] {
            prepare(&mut connection, mode).await?;
            for (name, reference) in pages {
                let plan = plan(&mut connection, reference).await?;
                let what = format!("{name}, {mode}, {statistics} statistics");
                assert_one_range_of_the_page_index(&plan, PAGE_SIZE.unsigned_abs(), &what);
            }
        }
    }
    connection.close().await?;

    let answer = page_after(&cluster, ALL - 1, 10).await?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.ids(),
        (SHOWN - 9..=SHOWN).rev().map(external_id).collect::<Vec<_>>()
    );
    Ok(())
}

const ORDERS: i64 = 50_000;

/// These are voided, half of them of client 1.
const VOIDED: RangeInclusive<i64> = 20_001..=45_000;

/// Half of them are another client's: a page must not read a whole table, nor all orders of a client.
const FILL: &str = "
    INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount,
                                      voided_at)
    SELECT id, ('00000000-0000-4000-8000-' || lpad(to_hex(id), 12, '0'))::uuid, 1 + id % 2, now(), 1, 'USD', 123.4, 48478.88, 0.00254647,
           CASE WHEN id BETWEEN 20001 AND 45000 THEN now() END
      FROM generate_series(1, 50000) AS id";

/// The models alone, with their schemas.
async fn without_services() -> anyhow::Result<Cluster> {
    let services = Vec::new();
    Cluster::start(Options {
        services,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn whatever_was_known_of_the_table_a_page_looks_at_its_rows_alone() -> anyhow::Result<()> {
    for statistics in Statistics::ALL {
        let cluster = without_services().await?;
        let model = cluster.read_model();
        statistics.set(model, FILL).await?;
        let mut session = session(&cluster).await?;
        db::pages(&mut session, &[NEWEST]).await?;
        statistics.fill(model, FILL).await?;
        // The client's first order, one in the middle, one and a voided one with thousands of voided orders below it, another client's, an
        // unknown one, and the newest page.
        for (reference, rows) in [
            (Some(external_id(2)), 1),
            (Some(external_id(VOIDED.start() / 2)), 10),
            (Some(external_id(VOIDED.end() + 2)), 10),
            (Some(external_id(*VOIDED.end())), 10),
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

#[tokio::test]
async fn whatever_was_known_of_the_table_a_look_up_of_orders_looks_at_their_rows_alone() -> anyhow::Result<()>
{
    for statistics in Statistics::ALL {
        let cluster = without_services().await?;
        let model = cluster.read_model();
        statistics.set(model, FILL).await?;
        let mut session = session(&cluster).await?;
        let known = OrderReference {
            client_id: 1,
            external_id: external_id(2).parse()?,
        };
        db::are_projected(&mut session, &[known]).await?;
        statistics.fill(model, FILL).await?;
        // The client's own order, a voided one, another client's, an unknown one, and many at once.
        let many: Vec<String> = (1..=100).map(|id| external_id(id * 400)).collect();
        for ids in [
            vec![external_id(2)],
            vec![external_id(*VOIDED.end() - 1)],
            vec![external_id(ORDERS / 2 + 1)],
            vec![external_id(ORDERS + 1)],
            many,
        ] {
            let clients = format!("{{{}}}", vec!["1"; ids.len()].join(","));
            let values = [clients.as_str(), &format!("{{{}}}", ids.join(","))];
            let rows = ids.len().try_into()?;
            keep_within(&mut session, &[Bounded::new("AS is_projected", &values, rows)])
                .await
                .with_context(|| format!("statistics: {statistics:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_order_is_projected_for_its_client_alone_and_answers_keep_the_order_of_the_questions()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    insert(cluster.read_model(), 2, 4..=6).await?;
    let asked = [(1, 1), (2, 1), (1, 4), (2, 5), (1, 7), (1, 3), (2, 6), (2, 2)];
    let orders = asked.into_iter().map(|(client_id, id)| {
        anyhow::Ok(OrderReference {
            client_id,
            external_id: external_id(id).parse()?,
        })
    });
    let orders: Vec<OrderReference> = orders.collect::<anyhow::Result<_>>()?;
    let mut session = session(&cluster).await?;
    let found = db::are_projected(&mut session, &orders).await?;
    assert_eq!(found, [true, false, false, true, false, true, true, false]);
    Ok(())
}
