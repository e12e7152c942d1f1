//! The order of an upgrade: first the schema, then the readers, then the writers. Between the steps, and as long as a part is not
//! upgraded, everything works; save orders across version 3 of the write model, which older releases cannot write to.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Raw, Service, create_owner, wait_until};
use common::database::{SESSION_SETTINGS, is_transient};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

mod write_model {
    refinery::embed_migrations!("../../migrations/write_model");
}

const LIMIT: Duration = Duration::from_secs(60);

async fn place(cluster: &Cluster) -> anyhow::Result<()> {
    let put = cluster.put_order(&cluster::new_order("USD", "1"));
    put.send().await?.error_for_status()?;
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
        (cluster.write_model(), "outbox"),
        (cluster.write_model(), "relay_lease"),
        (cluster.write_model(), "currency"),
        (cluster.write_model(), "client"),
        (cluster.write_model(), "buy_order_running_total"),
        (cluster.read_model(), "buy_order_read_model"),
        (cluster.read_model(), "buy_order_void_read_model"),
    ] {
        let ahead = format!(
            "ALTER TABLE {table} ADD COLUMN note varchar(140);
             INSERT INTO refinery_schema_history SELECT max(version) + 1, 'ahead', max(applied_on), '1' FROM refinery_schema_history"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(ahead)).execute(model).await?;
    }
    // Both for running processes with prepared statements and for new ones.
    place(&cluster).await?;
    pages_show(&cluster, 2).await?;
    for service in [
        Service::Migration,
        Service::ReadModelSync,
        Service::FetchBuyOrders,
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

/// The exact statements of the last release before version 3 of the write model: the look-up of an order, then the writes.
const LOOK_UP_OF_BEFORE: &str = "
    SELECT asked.place - 1 AS place, asked.currency, found.*
      FROM unnest($1::bigint[], $2::text[], $3::numeric[], $4::uuid[]) WITH ORDINALITY
           AS asked (client_id, currency, currency_amount, idempotence_key, place)
     CROSS JOIN LATERAL (
           SELECT o.id, o.external_id, o.created_at, o.currency_amount, o.btc_rate, o.btc_amount
             FROM buy_order AS o
            WHERE o.id = (SELECT cache.buy_order_id
                            FROM buy_order_idempotence_cache AS cache
                           WHERE cache.client_id = asked.client_id
                             AND cache.currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = asked.currency)
                             AND cache.currency_amount = asked.currency_amount
                             AND cache.idempotence_key = asked.idempotence_key)
            LIMIT 1) AS found";
const INSERT_OF_BEFORE: &str = "
    WITH draft AS MATERIALIZED (
        SELECT given.*, currency.id AS currency_id
          FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], $5::numeric[], $6::uuid[], $7::numeric[], $8::numeric[], $9::text[], $10::text[])
               AS given (place, external_id, client_id, currency, currency_amount, idempotence_key, btc_rate, btc_amount, traceparent, tracestate)
          JOIN currency ON currency.iso3 = given.currency
         WHERE (SELECT cache.buy_order_id
                  FROM buy_order_idempotence_cache AS cache
                 WHERE cache.client_id = given.client_id
                   AND cache.currency_id = currency.id
                   AND cache.currency_amount = given.currency_amount
                   AND cache.idempotence_key = given.idempotence_key) IS NULL
    ), created AS (
        INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
        SELECT external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount FROM draft ORDER BY place
        RETURNING id, external_id, created_at, currency_amount, btc_rate, btc_amount
    ), remembered AS (
        INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT draft.client_id, draft.currency_id, draft.currency_amount, draft.idempotence_key, created.id
          FROM created FULL JOIN draft USING (external_id)
    ), announced AS (
        INSERT INTO outbox (buy_order_id, traceparent, tracestate)
        SELECT created.id, draft.traceparent, draft.tracestate FROM created FULL JOIN draft USING (external_id) ORDER BY created.id
    ), counted AS (
        UPDATE buy_order_running_total SET btc_amount = btc_amount + (SELECT coalesce(sum(created.btc_amount), 0) FROM created)
    )
    SELECT draft.place, created.*, draft.currency FROM created FULL JOIN draft USING (external_id)";

/// Its `create_buy_order`: a session with the settings of the services, which keeps its prepared statements.
struct OfBefore(PgConnection);

impl OfBefore {
    async fn connect(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut session = PgConnection::connect_with(&cluster.addresses().write_model.options()).await?;
        for (name, value) in SESSION_SETTINGS {
            sqlx::query("SELECT set_config($1, $2, false)")
                .bind(name)
                .bind(value)
                .execute(&mut session)
                .await?;
        }
        Ok(Self(session))
    }

    async fn look_up(&mut self, key: Uuid) -> sqlx::Result<usize> {
        let found = sqlx::query(LOOK_UP_OF_BEFORE)
            .bind([1_i64])
            .bind(["USD"])
            .bind(["1"])
            .bind([key]);
        Ok(found.fetch_all(&mut self.0).await?.len())
    }

    async fn insert(&mut self, external_id: Uuid, key: Uuid) -> sqlx::Result<()> {
        let inserted = sqlx::query(INSERT_OF_BEFORE)
            .bind([0_i64])
            .bind([external_id])
            .bind([1_i64])
            .bind(["USD"])
            .bind(["1"])
            .bind([key])
            .bind(["48478.88"])
            .bind(["0.00002063"])
            .bind([None::<&str>])
            .bind([None::<&str>]);
        inserted.execute(&mut self.0).await.map(drop)
    }
}

/// A write model as the last release before version 3 left it.
async fn leave_at_version_2(cluster: &Cluster) -> anyhow::Result<()> {
    let pool = cluster.write_model();
    sqlx::raw_sql(
        "CREATE TABLE refinery_schema_history (version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))",
    )
    .execute(pool)
    .await?;
    let runner = write_model::migrations::runner();
    for migration in runner.get_migrations().iter().take(2) {
        let statements = migration.sql().context("no statements")?.to_owned();
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(pool).await?;
        sqlx::query("INSERT INTO refinery_schema_history VALUES ($1, $2, '2026-11-23T15:37:32.531853Z', $3)")
            .bind(migration.version())
            .bind(migration.name())
            .bind(migration.checksum().to_string())
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// All data of an order, as text.
async fn written(cluster: &Cluster) -> anyhow::Result<String> {
    let written = sqlx::query_scalar(
        "SELECT concat_ws(' ', (SELECT string_agg(buy_order::text, ' ' ORDER BY id) FROM buy_order),
                               (SELECT string_agg(outbox::text, ' ' ORDER BY id) FROM outbox), buy_order_running_total::text)
           FROM buy_order_running_total",
    );
    Ok(written.fetch_one(cluster.write_model()).await?)
}

#[tokio::test]
async fn across_version_3_an_older_create_buy_order_is_refused_until_it_is_upgraded_and_no_order_is_lost()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    leave_at_version_2(&cluster).await?;
    create_owner(&cluster.addresses().write_model).await?;
    let mut before = OfBefore::connect(&cluster).await?;
    let (id, key) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(before.look_up(key).await?, 0);
    before.insert(id, key).await?;
    assert_eq!(before.look_up(key).await?, 1);

    cluster.start_service(Service::Migration).await?;
    let as_upgraded = written(&cluster).await?;
    // A process with prepared statements, which gets a new session when its plan is invalid; and a new process.
    for session in [&mut before, &mut OfBefore::connect(&cluster).await?] {
        for asked_for in [key, Uuid::new_v4()] {
            let refused = session
                .look_up(asked_for)
                .await
                .err()
                .context("it was answered")?;
            assert!(is_transient(&refused), "no 503: {refused:?}");
            let sentence = "this write model was upgraded to version 3, and releases that know versions 1 and 2 cannot write to it";
            assert!(refused.to_string().contains(sentence), "{refused}");
            // An order whose look-up was answered before the upgrade.
            assert!(session.insert(Uuid::new_v4(), asked_for).await.is_err());
        }
    }
    assert_eq!(written(&cluster).await?, as_upgraded);

    for service in [Service::ReadModelSync, Service::FetchBuyOrders] {
        cluster.start_service(service).await?;
    }
    pages_show(&cluster, 0).await?;
    for service in [Service::BtcPrice, Service::CreateBuyOrder] {
        cluster.start_service(service).await?;
    }
    // Its event was not published yet.
    pages_show(&cluster, 1).await?;
    let order = cluster::order_with_key("USD", "1.00", key);
    let repeated = cluster.put_order(&order).send().await?;
    let is_replayed = repeated.headers().contains_key("idempotent-replayed");
    let repeated: Value = repeated.json().await?;
    assert!(
        is_replayed && repeated["buy_order"]["id"] == json!(id),
        "{repeated}"
    );
    place(&cluster).await?;
    pages_show(&cluster, 2).await?;
    models_are_equal(&cluster).await
}
