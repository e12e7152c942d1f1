//! The order of an upgrade: the schema first, then those who read, then those who write. Between the steps, and for as long as a part is not
//! upgraded, everything works.

use std::time::Duration;

use cluster::{Cluster, Options, Raw, Service, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn place(cluster: &Cluster) -> anyhow::Result<()> {
    let order = json!({"currency": "USD", "amount": "1", "idempotence_key": uuid::Uuid::new_v4()});
    let url = cluster.url(Service::CreateBuyOrder) + "/buy_order";
    cluster
        .http()
        .put(url)
        .json(&order)
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}

async fn pages_show(cluster: &Cluster, orders: usize) -> anyhow::Result<()> {
    wait_until("the orders are shown", LIMIT, async || {
        let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
        let page: Value = cluster.http().get(url).send().await?.json().await?;
        let shown = page["rows"].as_array().map(Vec::len);
        anyhow::ensure!(shown == Some(orders), "{shown:?} orders in {page}");
        Ok(true)
    })
    .await
}

async fn models_are_equal(cluster: &Cluster) -> anyhow::Result<()> {
    let checksums = cluster
        .admin(Service::CreateBuyOrder, &["checksums"], "")
        .await?
        .stdout;
    let ended = cluster
        .admin(Service::ReadModelSync, &["verify", "--wait", "30"], &checksums)
        .await?;
    anyhow::ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn services_work_on_a_schema_that_is_a_nullable_column_ahead_of_them() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    place(&cluster).await?;
    pages_show(&cluster, 1).await?;
    for (model, table) in [
        (cluster.write_model(), "buy_order"),
        (cluster.write_model(), "buy_order_idempotence_cache"),
        (cluster.write_model(), "outbox"),
        (cluster.write_model(), "currency"),
        (cluster.write_model(), "client"),
        (cluster.write_model(), "buy_order_running_total"),
        (cluster.read_model(), "buy_order_read_model"),
    ] {
        let ahead = format!(
            "ALTER TABLE {table} ADD COLUMN note varchar(140);
             INSERT INTO refinery_schema_history SELECT max(version) + 1, 'ahead', max(applied_on), '1' FROM refinery_schema_history"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(ahead)).execute(model).await?;
    }
    // Those that run, with what they have prepared, and those that start.
    place(&cluster).await?;
    pages_show(&cluster, 2).await?;
    for service in [
        Service::Migration,
        Service::FetchBuyOrders,
        Service::ReadModelSync,
        Service::CreateBuyOrder,
    ] {
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
    }
    place(&cluster).await?;
    pages_show(&cluster, 3).await?;
    models_are_equal(&cluster).await?;
    let republished = cluster.admin(Service::CreateBuyOrder, &["republish"], "").await?;
    assert_eq!(republished.code, Some(0), "{republished:?}");
    models_are_equal(&cluster).await?;
    assert_eq!(cluster.queue_messages("buy_order.dead_letter").await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_event_of_a_newer_service_with_more_fields_is_projected() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::ReadModelSync, Service::FetchBuyOrders])).await?;
    let id = uuid::Uuid::new_v4();
    let event = json!({
        "id": 1, "client_id": 1, "external_id": id, "created_at": "2026-11-23T15:37:32.531853Z", "currency_id": 1,
        "currency_iso3": "USD", "currency_amount": "123.45", "btc_rate": "48478.88000000", "btc_amount": "0.00254647",
        "note": "of a later version", "nested": {"a": [1, null]},
    });
    let message = Raw {
        body: serde_json::to_vec(&event)?,
        message_id: Some(id.to_string()),
        message_type: Some("buy_order_created".to_owned()),
    };
    cluster.publish(&[message]).await?;
    pages_show(&cluster, 1).await?;
    assert_eq!(cluster.queue_messages("buy_order.dead_letter").await?, 0);
    Ok(())
}
