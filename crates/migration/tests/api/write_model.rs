//! The rules that the write model's database keeps, whoever writes to it.

use cluster::{Cluster, Options};
use sqlx::PgPool;

use crate::support::{each_breaks_its_check, refusal, uncommented};

/// `restrict_violation`, as the triggers report it.
const REFUSED: &str = "23001";

const ORDER: &str = "
    WITH placed AS (
        INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
        VALUES ('3b14efb6-041f-4d31-b35a-37c82333af36', 1, 1, 123.45, 48478.88, 0.00254647) RETURNING id
    ), keyed AS (
        INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT 1, 1, 123.45, '5fa733ae-82b4-4ac0-8478-35ff30dae879', id FROM placed
    )
    INSERT INTO outbox (buy_order_id) SELECT id FROM placed";

async fn databases() -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await
}

async fn count(pool: &PgPool, table: &'static str) -> anyhow::Result<i64> {
    Ok(
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(pool)
            .await?,
    )
}

#[tokio::test]
async fn the_client_the_currencies_and_an_empty_total_are_there_from_the_start() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let clients: Vec<(i64, String)> = sqlx::query_as("SELECT id, email FROM client")
        .fetch_all(pool)
        .await?;
    assert_eq!(clients, [(1, "customer@example.com".to_owned())]);
    let currencies: Vec<(i64, String, i16)> = sqlx::query_as("SELECT id, iso3, dp FROM currency ORDER BY id")
        .fetch_all(pool)
        .await?;
    let wanted = [(1, "USD", 2), (2, "GBP", 2), (3, "EUR", 2)];
    assert_eq!(currencies, wanted.map(|(id, iso3, dp)| (id, iso3.to_owned(), dp)));
    let totals: Vec<String> = sqlx::query_scalar("SELECT btc_amount::text FROM buy_order_running_total")
        .fetch_all(pool)
        .await?;
    assert_eq!(totals, ["0.00000000"]);
    Ok(())
}

#[tokio::test]
async fn update_delete_and_truncate_of_orders_and_keys_are_refused() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    sqlx::query(ORDER).execute(pool).await?;
    for statement in [
        "UPDATE buy_order SET btc_amount = 1",
        "UPDATE buy_order SET btc_amount = 1 WHERE false",
        "DELETE FROM buy_order",
        "TRUNCATE buy_order CASCADE",
        "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
         SELECT external_id, 1, 1, 1, 1, 1 FROM buy_order ON CONFLICT (external_id) DO UPDATE SET btc_rate = 2",
        "UPDATE buy_order_idempotence_cache SET idempotence_key = gen_random_uuid()",
        "DELETE FROM buy_order_idempotence_cache",
        "TRUNCATE buy_order_idempotence_cache",
    ] {
        let refused = refusal(pool, statement).await?;
        assert_eq!(refused.code, REFUSED, "{statement}: {refused:?}");
    }
    assert_eq!(count(pool, "buy_order").await?, 1);
    assert_eq!(count(pool, "buy_order_idempotence_cache").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_what_was_refused_and_why() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let refused = refusal(cluster.write_model(), "DELETE FROM buy_order").await?;
    assert_eq!(
        refused.message,
        "delete of table buy_order is refused: orders are append-only"
    );
    Ok(())
}

#[tokio::test]
async fn the_running_total_is_one_row_for_ever() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let second = refusal(
        pool,
        "INSERT INTO buy_order_running_total (btc_amount) VALUES (0)",
    )
    .await?;
    assert_eq!(
        (second.code.as_str(), second.constraint.as_deref()),
        ("23505", Some("buy_order_running_total_pkey"))
    );
    let other = "INSERT INTO buy_order_running_total (singleton, btc_amount) VALUES (false, 0)".to_owned();
    each_breaks_its_check(pool, &[("buy_order_running_total_singleton_check", other)]).await?;
    for statement in [
        "DELETE FROM buy_order_running_total",
        "TRUNCATE buy_order_running_total",
    ] {
        assert_eq!(refusal(pool, statement).await?.code, REFUSED, "{statement}");
    }
    assert_eq!(count(pool, "buy_order_running_total").await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_running_total_stays_within_0_and_100() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let to = |total: &str| format!("UPDATE buy_order_running_total SET btc_amount = {total}");
    let check = "buy_order_running_total_btc_amount_check";
    each_breaks_its_check(pool, &[(check, to("100.00000001")), (check, to("-0.00000001"))]).await?;
    sqlx::query("UPDATE buy_order_running_total SET btc_amount = 100")
        .execute(pool)
        .await?;
    Ok(())
}

#[tokio::test]
async fn amounts_out_of_bounds_are_refused() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let order = |fiat: &str, rate: &str, btc: &str| {
        format!(
            "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
             VALUES (gen_random_uuid(), 1, 1, {fiat}, {rate}, {btc})"
        )
    };
    let key = |fiat: &str| {
        format!(
            "INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
             VALUES (1, 1, {fiat}, gen_random_uuid(), 1)"
        )
    };
    each_breaks_its_check(
        cluster.write_model(),
        &[
            ("buy_order_currency_amount_check", order("0", "1", "1")),
            ("buy_order_currency_amount_check", order("-1", "1", "1")),
            ("buy_order_currency_amount_check", order("1000000000", "1", "1")),
            ("buy_order_btc_rate_check", order("1", "0", "1")),
            ("buy_order_btc_amount_check", order("1", "1", "0")),
            ("buy_order_btc_amount_check", order("1", "1", "100.00000001")),
            ("buy_order_idempotence_cache_currency_amount_check", key("0")),
            (
                "buy_order_idempotence_cache_currency_amount_check",
                key("1000000000"),
            ),
            (
                "currency_iso3_check",
                "INSERT INTO currency (iso3, dp) VALUES ('jpy', 0)".to_owned(),
            ),
            (
                "currency_dp_check",
                "INSERT INTO currency (iso3, dp) VALUES ('KWD', 3)".to_owned(),
            ),
            (
                "client_email_check",
                "INSERT INTO client (email) VALUES ('nobody')".to_owned(),
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn a_key_names_one_order_however_its_amount_is_written() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    sqlx::query(ORDER).execute(pool).await?;
    let again = "INSERT INTO buy_order_idempotence_cache
        (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT 1, 1, 123.450, '5fa733ae-82b4-4ac0-8478-35ff30dae879', id FROM buy_order";
    let refused = refusal(pool, again).await?;
    assert_eq!(
        refused.constraint.as_deref(),
        Some("buy_order_idempotence_cache_pkey")
    );
    Ok(())
}

#[tokio::test]
async fn ids_are_drawn_by_the_database_alone() -> anyhow::Result<()> {
    const GENERATED_ALWAYS: &str = "428C9";
    let cluster = databases().await?;
    for statement in [
        "INSERT INTO buy_order (id, external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
         VALUES (7, gen_random_uuid(), 1, 1, 1, 1, 1)",
        "INSERT INTO outbox (id, buy_order_id) VALUES (7, 1)",
        "INSERT INTO client (id, email) VALUES (7, 'a@b')",
        "INSERT INTO currency (id, iso3, dp) VALUES (7, 'CHF', 2)",
    ] {
        assert_eq!(refusal(cluster.write_model(), statement).await?.code, GENERATED_ALWAYS, "{statement}");
    }
    Ok(())
}

#[tokio::test]
async fn every_table_and_column_is_commented() -> anyhow::Result<()> {
    let cluster = databases().await?;
    assert_eq!(uncommented(cluster.write_model()).await?, Vec::<String>::new());
    Ok(())
}
