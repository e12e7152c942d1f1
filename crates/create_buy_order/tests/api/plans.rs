//! Statements whose plans are kept, from when the tables were empty: what is asserted is the work that the database does once they are not.

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options};
use create_buy_order::db;
use create_buy_order::outbox::SESSION_SETTINGS;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

const ORDERS: u64 = 20_000;

/// Rows that one step of a plan may look at for each that was asked for.
const LOOKED_AT_EACH: u64 = 8;

/// A session like a service's, in which the statement was prepared and executed while there was no order.
async fn prepared(
    cluster: &Cluster,
    settings: &[(&str, &str)],
    statement: &str,
    types: &str,
    values: &str,
) -> anyhow::Result<PgConnection> {
    let options = cluster.addresses().write_model.options();
    let options = options
        .options(common::database::SESSION_SETTINGS)
        .options(settings.iter().copied());
    let mut connection = PgConnection::connect_with(&options).await?;
    for statement in [
        "ANALYZE".to_owned(),
        format!("PREPARE kept ({types}) AS {statement}"),
        format!("EXECUTE kept ({values})"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
    }
    Ok(connection)
}

/// Orders with keys, that are their external ids, and events.
async fn insert_orders(cluster: &Cluster) -> anyhow::Result<()> {
    let orders = format!(
        "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
         SELECT gen_random_uuid(), 1, currency.id, 1, 48478.88, 0.00000001 FROM currency, generate_series(1, {ORDERS}) WHERE iso3 = 'USD'"
    );
    let keys = "INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
                SELECT client_id, currency_id, currency_amount, external_id, id FROM buy_order";
    let events = "INSERT INTO outbox (buy_order_id) SELECT id FROM buy_order ORDER BY id";
    for statement in [orders.as_str(), keys, events] {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(cluster.write_model())
            .await?;
    }
    Ok(())
}

/// Executes the statement that was prepared, and tells what each step did.
async fn executed(connection: &mut PgConnection, values: &str) -> anyhow::Result<Value> {
    let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept ({values})");
    let row = sqlx::raw_sql(AssertSqlSafe(explain))
        .fetch_one(connection)
        .await?;
    let text: String = sqlx::Row::try_get_unchecked(&row, 0)?;
    let plans: Value = serde_json::from_str(&text)?;
    ensure!(plans.pointer("/0/JIT").is_none(), "compiled: {plans:#}");
    plans.pointer("/0/Plan").cloned().context("no plan")
}

/// The most rows that a step of the plan has looked at.
fn most_looked_at(plan: &Value) -> u64 {
    // Counted in whole rows; newer servers write them with decimals.
    let number = |name: &str| {
        let text = plan.get(name).map(Value::to_string).unwrap_or_default();
        text.split('.')
            .next()
            .and_then(|whole| whole.parse().ok())
            .unwrap_or(0)
    };
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Join Filter");
    let own = (number("Actual Rows") + removed) * number("Actual Loops");
    let steps = plan.get("Plans").and_then(Value::as_array);
    steps
        .into_iter()
        .flatten()
        .map(most_looked_at)
        .fold(own, u64::max)
}

async fn empty_book() -> anyhow::Result<Cluster> {
    let options = Options {
        services: Vec::new(),
        ..Options::default()
    };
    Cluster::start(options).await
}

#[tokio::test]
async fn a_repeat_is_found_among_many_orders_by_looking_at_a_few() -> anyhow::Result<()> {
    let cluster = empty_book().await?;
    let types = "bigint[], text[], numeric[], uuid[]";
    let request = |key: &str| format!("ARRAY[1], ARRAY['USD'], ARRAY[1.00], ARRAY['{key}'::uuid]");
    let nobodys = request("00000000-0000-4000-8000-000000000000");
    let mut connection = prepared(&cluster, &[], db::LOOK_UP, types, &nobodys).await?;
    insert_orders(&cluster).await?;
    let key: String =
        sqlx::query_scalar("SELECT external_id::text FROM buy_order ORDER BY id OFFSET 10000 LIMIT 1")
            .fetch_one(cluster.write_model())
            .await?;
    let plan = executed(&mut connection, &request(&key)).await?;
    assert!(most_looked_at(&plan) <= LOOKED_AT_EACH, "{plan:#}");
    Ok(())
}

#[tokio::test]
async fn a_new_order_is_written_among_many_by_looking_at_a_few() -> anyhow::Result<()> {
    let cluster = empty_book().await?;
    let types = "bigint[], uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[]";
    let new = "ARRAY[0], ARRAY[gen_random_uuid()], ARRAY[1], ARRAY['USD'], ARRAY[1.00], ARRAY[gen_random_uuid()], ARRAY[48478.88], \
               ARRAY[0.00000001], ARRAY[NULL]";
    let mut connection = prepared(&cluster, &[], db::INSERT, types, new).await?;
    insert_orders(&cluster).await?;
    let plan = executed(&mut connection, new).await?;
    assert!(most_looked_at(&plan) <= LOOKED_AT_EACH, "{plan:#}");
    Ok(())
}

#[tokio::test]
async fn events_of_a_backlog_are_claimed_by_looking_at_them_alone() -> anyhow::Result<()> {
    const CLAIMED: u64 = 100;
    let cluster = empty_book().await?;
    let values = format!("{CLAIMED}, 8");
    let mut connection = prepared(
        &cluster,
        &SESSION_SETTINGS,
        db::outbox::CLAIM,
        "bigint, float8",
        &values,
    )
    .await?;
    insert_orders(&cluster).await?;
    let plan = executed(&mut connection, &values).await?;
    assert!(most_looked_at(&plan) <= CLAIMED * LOOKED_AT_EACH, "{plan:#}");
    let claimed: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE claimed_until IS NOT NULL")
        .fetch_one(cluster.write_model())
        .await?;
    assert_eq!(u64::try_from(claimed)?, CLAIMED);
    Ok(())
}
