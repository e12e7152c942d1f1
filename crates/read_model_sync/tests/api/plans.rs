//! Every statement of this service, whatever PostgreSQL knew of the table when it made the plan that it keeps.

use std::ops::Range;

use anyhow::Context as _;
use cluster::plans::{Bounded, Statistics, keep_within};
use cluster::{Cluster, Options};
use read_model_sync::db;
use sqlx::{Connection as _, PgConnection};

use super::{event, external_id, void_event};

const FILL: &str = "
    INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount)
    SELECT id, ('3b14efb6-041f-4d31-b35a-' || lpad(id::text, 12, '0'))::uuid, 1, now(), 1, 'USD', 123.4, 48478.88, 0.00254647
      FROM generate_series(1, 50000) AS id;
    INSERT INTO buy_order_void_read_model (id, external_id, reason, voided_at)
    SELECT id, external_id, 'fat finger', now() FROM buy_order_read_model WHERE id % 2 = 0;
    UPDATE buy_order_read_model SET voided_at = now() WHERE id % 4 = 0";

/// A session like the service's, in which every statement of the service was made once while there was no row.
async fn everything_prepared(cluster: &Cluster) -> anyhow::Result<PgConnection> {
    let options = cluster.addresses().read_model.options();
    let options = options.options(common::database::SESSION_SETTINGS);
    let mut session = PgConnection::connect_with(&options).await?;
    let order = serde_json::from_value(event(1))?;
    let void = serde_json::from_value(void_event(1))?;
    db::checksum(&mut session, 1, 1, 1).await?;
    db::extra_rows(&mut session, 1, 1, 0).await?;
    db::newest_id(&mut session).await?;
    sqlx::raw_sql("BEGIN").execute(&mut session).await?;
    for _ in 0..2 {
        db::insert_orders(&mut session, &[&order]).await?;
        db::insert_voids(&mut session, &[&void]).await?;
    }
    db::mark_voided(&mut session, &[1]).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut session).await?;
    Ok(session)
}

fn array(ids: &Range<i64>, value: impl Fn(i64) -> String) -> String {
    let values: Vec<String> = ids.clone().map(value).collect();
    format!("{{{}}}", values.join(","))
}

/// Of orders with these ids that are new, or are there already.
fn inserted(ids: Range<i64>) -> Bounded {
    let array = |value: &dyn Fn(i64) -> String| array(&ids, value);
    let same = |value: &'static str| array(&|_| value.to_owned());
    Bounded {
        statement: "INSERT INTO buy_order_read_model",
        values: vec![
            array(&|id| id.to_string()),
            same("1"),
            array(&external_id),
            same("2026-11-23 15:37:32Z"),
            same("1"),
            same("USD"),
            same("1.00"),
            same("48478.88"),
            same("0.00254647"),
        ],
        rows: ids.clone().count() as u64,
    }
}

/// Of voids with these ids that are new, or are there already.
fn inserted_voids(ids: Range<i64>) -> Bounded {
    Bounded {
        statement: "INSERT INTO buy_order_void_read_model",
        values: vec![
            array(&ids, |id| id.to_string()),
            array(&ids, external_id),
            array(&ids, |_| "another".to_owned()),
            array(&ids, |_| "2026-11-28 15:37:32Z".to_owned()),
        ],
        rows: ids.count() as u64,
    }
}

/// Of orders with these ids. Half of them are voided, and half of these are not marked yet.
fn marked(ids: Range<i64>) -> Bounded {
    Bounded {
        statement: "UPDATE buy_order_read_model",
        values: vec![array(&ids, |id| id.to_string())],
        rows: ids.count() as u64,
    }
}

#[tokio::test]
async fn whatever_was_known_of_the_table_every_statement_looks_at_what_it_asks_for_alone()
-> anyhow::Result<()> {
    let ids: Vec<String> = (1000..1500).map(|id| id.to_string()).collect();
    let external_ids: Vec<String> = (1000..1500).map(external_id).collect();
    let [ids, external_ids] = [ids, external_ids].map(|values| format!("{{{}}}", values.join(",")));
    let bounds = [
        inserted_voids(60_000..60_500),
        inserted_voids(1000..1500),
        marked(1001..1002),
        marked(1002..1003),
        marked(1000..1500),
        marked(60_000..60_500),
        Bounded::new("SELECT v.*", &[&ids], 500),
        inserted(60_000..60_001),
        inserted(60_000..60_500),
        inserted(1000..1500),
        Bounded::new(
            "SELECT o.*\n         FROM unnest",
            &["{1000}", &format!("{{{}}}", external_id(1000))],
            2,
        ),
        Bounded::new("SELECT o.*\n         FROM unnest", &[&ids, &external_ids], 1000),
        Bounded::new("WITH line AS", &["1000", "1099", "9000000000000000"], 100),
        Bounded::new("AS younger", &["11", "49990", "0"], 20),
        Bounded::new("SELECT coalesce((SELECT id FROM", &[], 1),
    ];
    for statistics in Statistics::ALL {
        let cluster = Cluster::start(Options {
            services: Vec::new(),
            ..Options::default()
        })
        .await?;
        let model = cluster.read_model();
        statistics.set(model, FILL).await?;
        let mut session = everything_prepared(&cluster).await?;
        statistics.fill(model, FILL).await?;
        keep_within(&mut session, &bounds)
            .await
            .with_context(|| format!("statistics: {statistics:?}"))?;
    }
    Ok(())
}
