//! The rules that the read model's database enforces.

use crate::support::{databases, each_breaks_its_check, refusal, uncommented};

fn row(id: u32, iso3: &str, fiat: &str, rate: &str, btc: &str) -> String {
    format!(
        "INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3,
                                           currency_amount, btc_rate, btc_amount)
         VALUES ({id}, '3b14efb6-041f-4d31-b35a-37c82333af36', 1, now(), 1, '{iso3}', {fiat}, {rate}, {btc})"
    )
}

#[tokio::test]
async fn rows_that_no_order_can_have_are_refused() -> anyhow::Result<()> {
    let cluster = databases().await?;
    for (column, statement) in [
        ("currency_iso3", row(1, "usd", "1", "1", "1")),
        ("currency_iso3", row(1, "US", "1", "1", "1")),
        ("currency_amount", row(1, "USD", "0", "1", "1")),
        ("btc_rate", row(1, "USD", "1", "-1", "1")),
        ("btc_amount", row(1, "USD", "1", "1", "0")),
    ] {
        let check = format!("buy_order_read_model_{column}_check");
        each_breaks_its_check(cluster.read_model(), &[(&check, statement)]).await?;
    }
    Ok(())
}

fn void(id: u32, reason: &str) -> String {
    format!(
        "INSERT INTO buy_order_void_read_model (id, external_id, reason, voided_at)
         VALUES ({id}, '3b14efb6-041f-4d31-b35a-37c82333af36', {reason}, now())"
    )
}

#[tokio::test]
async fn a_void_has_a_reason_that_fits_on_a_line_and_needs_no_order() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.read_model();
    for reason in [
        "''",
        "'   '",
        "repeat('₿', 501)",
        "E'two\\nlines'",
        "E'\\u0085'",
        "E'\\u0001'",
        "E'\\x7f'",
    ] {
        let statement = void(1, reason);
        each_breaks_its_check(pool, &[("buy_order_void_read_model_reason_check", statement)]).await?;
    }
    for (id, reason) in [(1, "repeat('₿', 500)"), (2, "' x '"), (3, "'größer | \"als\" 1'")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(void(id, reason)))
            .execute(pool)
            .await?;
    }
    let again = refusal(pool, &void(3, "'another'")).await?;
    assert_eq!(
        again.constraint.as_deref(),
        Some("buy_order_void_read_model_pkey")
    );
    Ok(())
}

#[tokio::test]
async fn an_order_has_one_row() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.read_model();
    sqlx::raw_sql(sqlx::AssertSqlSafe(row(1, "USD", "1", "1", "1")))
        .execute(pool)
        .await?;
    let same_id = refusal(pool, &row(1, "USD", "1", "1", "1")).await?;
    assert_eq!(same_id.constraint.as_deref(), Some("buy_order_read_model_pkey"));
    let same_external_id = refusal(pool, &row(2, "USD", "1", "1", "1")).await?;
    assert_eq!(
        same_external_id.constraint.as_deref(),
        Some("buy_order_read_model_external_id_key")
    );
    Ok(())
}

#[tokio::test]
async fn the_read_model_can_be_thrown_away() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.read_model();
    sqlx::raw_sql(sqlx::AssertSqlSafe(row(1, "USD", "1", "1", "1")))
        .execute(pool)
        .await?;
    sqlx::query("TRUNCATE buy_order_read_model").execute(pool).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(row(1, "USD", "1", "1", "1")))
        .execute(pool)
        .await?;
    Ok(())
}

#[tokio::test]
async fn every_table_and_column_is_commented() -> anyhow::Result<()> {
    let cluster = databases().await?;
    assert_eq!(uncommented(cluster.read_model()).await?, Vec::<String>::new());
    Ok(())
}
