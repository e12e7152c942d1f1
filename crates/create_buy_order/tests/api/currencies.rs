//! The currencies of the code and of the write model. They differ in a rolling upgrade, when the service is newer than the schema.

use std::time::Duration;

use cluster::{Cluster, Options, Service, new_order as order, wait_until};
use common::money::Currency;
use create_buy_order::order::CAP;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::batch::{drafts_that_wait, put_together};
use super::{buy, count, new_key, start_cluster_with_quotes_for, two_processes};

const LIMIT: Duration = Duration::from_secs(60);

const WITHOUT_POUNDS: &str = "DELETE FROM currency WHERE iso3 = 'GBP'";
const WITH_POUNDS: &str = "INSERT INTO currency (iso3, dp) VALUES ('GBP', 2)";

async fn write_model(cluster: &Cluster, statement: &'static str) -> anyhow::Result<()> {
    sqlx::query(statement).execute(cluster.write_model()).await?;
    Ok(())
}

#[tokio::test]
async fn the_write_model_has_the_currencies_and_the_cap_of_this_service() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let pool = cluster.write_model();
    let table: Vec<(String, i16)> = sqlx::query_as("SELECT iso3::text, dp FROM currency ORDER BY iso3")
        .fetch_all(pool)
        .await?;
    let mut known: Vec<(String, i16)> = Vec::new();
    for currency in Currency::ALL {
        known.push((currency.iso3().to_owned(), currency.decimal_places().try_into()?));
    }
    known.sort();
    assert_eq!(table, known);

    let set_total = |btc: Decimal| {
        sqlx::query("UPDATE buy_order_running_total SET btc_amount = $1")
            .bind(btc)
            .execute(pool)
    };
    set_total(CAP).await?;
    assert!(set_total(CAP + Decimal::new(1, 8)).await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_order_in_a_currency_that_the_table_lacks_is_refused_alone() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    for url in &urls {
        // From now on the prices are cached.
        for currency in ["USD", "GBP"] {
            let body = order(currency, "1");
            super::put_json(&cluster.http(), url, &body).await?;
        }
    }
    let before = count(&cluster, "buy_order").await?;
    write_model(&cluster, "UPDATE currency SET iso3 = 'XXX' WHERE iso3 = 'GBP'").await?;

    let twice = order("GBP", "7");
    let mut bodies: Vec<Value> = (0..20).map(|_| order("USD", "1")).collect();
    bodies.extend((0..4).map(|_| order("GBP", "1")));
    bodies.extend([twice.clone(), order("USD", "2"), twice, order("EUR", "3")]);
    let answers = put_together(&cluster, &urls, &bodies).await?;
    for (body, answer) in bodies.iter().zip(&answers) {
        if body["currency"] == "GBP" {
            assert_eq!(
                (answer.status, answer.retry_after.is_some()),
                (503, true),
                "{answer:?}"
            );
            let detail =
                "orders in GBP are not available yet, try again shortly with the same idempotence_key";
            assert_eq!(answer.body, json!({ "detail": detail }));
        } else {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    assert_eq!(count(&cluster, "buy_order").await?, before + 22);
    assert_eq!(drafts_that_wait(&cluster, &urls).await?, 0);

    write_model(&cluster, "UPDATE currency SET iso3 = 'GBP' WHERE iso3 = 'XXX'").await?;
    let key = new_key();
    assert_eq!(buy(&cluster, "GBP", "1", &key).await?.status, 200);
    assert!(buy(&cluster, "GBP", "1", &key).await?.replayed);
    Ok(())
}

#[tokio::test]
async fn an_order_that_cannot_be_written_takes_no_room_under_the_cap() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    write_model(&cluster, WITHOUT_POUNDS).await?;
    // 3,533,089 GBP are 100 BTC: nothing else would fit. Each process first gets another order, and then the rest together.
    let mut bodies = vec![order("USD", "1"), order("USD", "1")];
    bodies.extend(vec![order("GBP", "3533089"); 2]);
    bodies.extend((0..6).map(|_| order("USD", "1")));
    let answers = put_together(&cluster, &urls, &bodies).await?;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(
        statuses,
        [200, 200, 503, 503, 200, 200, 200, 200, 200, 200],
        "{answers:?}"
    );
    Ok(())
}

#[tokio::test]
async fn one_order_that_the_database_refuses_does_not_take_the_others_of_its_batch_with_it()
-> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for("60").await?;
    let urls = two_processes(&cluster).await?;
    write_model(
        &cluster,
        "ALTER TABLE buy_order ADD CONSTRAINT no_thirteens CHECK (currency_amount <> 13)",
    )
    .await?;
    let mut bodies: Vec<Value> = (0..20).map(|_| order("USD", "1")).collect();
    bodies[6] = order("USD", "13");
    let answers = put_together(&cluster, &urls, &bodies).await?;
    for (body, answer) in bodies.iter().zip(&answers) {
        let expected = if body["amount"] == "13" { 500 } else { 200 };
        assert_eq!(answer.status, expected, "{body}: {answer:?}");
    }
    assert_eq!(count(&cluster, "buy_order").await?, 19);
    Ok(())
}

#[tokio::test]
async fn a_service_says_at_its_start_and_in_its_metrics_which_currencies_the_table_lacks()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::BtcPrice])).await?;
    write_model(&cluster, WITHOUT_POUNDS).await?;
    cluster.start_service(Service::CreateBuyOrder).await?;
    let told = |event: &str| {
        let events = cluster.logs(Service::CreateBuyOrder);
        events.into_iter().find(|line| line["event"] == event)
    };
    wait_until("it says so", LIMIT, async || {
        Ok(told("schema_differs_from_code").is_some())
    })
    .await?;
    let event = told("schema_differs_from_code").unwrap_or_default();
    assert_eq!(event["missing_currencies"], "GBP", "{event}");
    metric_becomes(&cluster, "order_currencies_missing 1").await?;

    write_model(&cluster, WITH_POUNDS).await?;
    metric_becomes(&cluster, "order_currencies_missing 0").await?;
    assert!(told("schema_fits_code").is_some());
    Ok(())
}

async fn metric_becomes(cluster: &Cluster, line: &str) -> anyhow::Result<()> {
    wait_until(line, LIMIT, async || {
        let shown = super::metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await?;
        Ok(shown.iter().any(|shown| shown == line))
    })
    .await
}
