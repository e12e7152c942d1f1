//! The rules that the write model's database enforces.

use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{databases, each_breaks_its_check, refusal, uncommented};

/// `restrict_violation`, as the triggers report it.
const REFUSED: &str = "23001";

const EXTERNAL_ID: &str = "'3b14efb6-041f-4d31-b35a-37c82333af36'";
const KEY: &str = "'5fa733ae-82b4-4ac0-8478-35ff30dae879'";

const COLUMNS: [&str; 7] = [
    "external_id",
    "client_id",
    "currency_id",
    "currency_amount",
    "idempotence_key",
    "btc_rate",
    "btc_amount",
];

/// A statement that inserts an order with these values, written in SQL, and defaults for the other columns.
fn order(values: &[(&str, &str)]) -> String {
    let values = COLUMNS.map(|column| match values.iter().find(|(name, _)| *name == column) {
        Some(&(_, value)) => value,
        None if ["external_id", "idempotence_key"].contains(&column) => "gen_random_uuid()",
        None => "1",
    });
    let (columns, values) = (COLUMNS.join(", "), values.join(", "));
    format!("INSERT INTO buy_order ({columns}) VALUES ({values})")
}

async fn run(pool: &PgPool, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}

async fn count(pool: &PgPool, table: &'static str) -> anyhow::Result<i64> {
    Ok(
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
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
async fn update_delete_and_truncate_of_orders_are_refused() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    run(pool, order(&[("idempotence_key", KEY)])).await?;
    for statement in [
        "UPDATE buy_order SET btc_amount = 1",
        "UPDATE buy_order SET btc_amount = 1 WHERE false",
        "DELETE FROM buy_order",
        "TRUNCATE buy_order CASCADE",
        // A lost key would let one request make two orders.
        "UPDATE buy_order SET idempotence_key = gen_random_uuid()",
        "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
         SELECT external_id, 1, 1, 1, idempotence_key, 1, 1 FROM buy_order ON CONFLICT (external_id) DO UPDATE SET btc_rate = 2",
    ] {
        let refused = refusal(pool, statement).await?;
        assert_eq!(refused.code, REFUSED, "{statement}: {refused:?}");
    }
    assert_eq!(count(pool, "buy_order").await?, 1);
    let key: String = sqlx::query_scalar("SELECT idempotence_key::text FROM buy_order")
        .fetch_one(pool)
        .await?;
    assert_eq!(key, "5fa733ae-82b4-4ac0-8478-35ff30dae879");
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
async fn voids_are_append_only_and_have_a_reason() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    run(pool, order(&[])).await?;
    let insert =
        |reason: &str| format!("INSERT INTO buy_order_void (buy_order_id, reason) VALUES (1, {reason})");
    let check = "buy_order_void_reason_check";
    for reason in ["''", "'  '", "repeat('ü', 501)", "E'two\\nlines'", "E'\\x1b[2J'"] {
        each_breaks_its_check(pool, &[(check, insert(reason))]).await?;
    }
    let of_none = "INSERT INTO buy_order_void (buy_order_id, reason) VALUES (2, 'none')";
    let refused = refusal(pool, of_none).await?;
    assert_eq!(
        refused.constraint.as_deref(),
        Some("buy_order_void_buy_order_id_fkey")
    );
    run(pool, insert("repeat('ü', 500)")).await?;
    for statement in [
        "UPDATE buy_order_void SET reason = 'another'",
        "DELETE FROM buy_order_void",
        "TRUNCATE buy_order_void",
    ] {
        let refused = refusal(pool, statement).await?;
        assert_eq!(refused.code, REFUSED, "{statement}: {refused:?}");
        assert!(refused.message.ends_with("voids are append-only"), "{refused:?}");
    }
    assert_eq!(count(pool, "buy_order_void").await?, 1);
    Ok(())
}

/// Asserts that a table has one row, that a second is refused and that the row cannot be deleted.
async fn is_one_row_for_ever(pool: &PgPool, table: &'static str, row: &str) -> anyhow::Result<()> {
    let second = refusal(pool, &format!("INSERT INTO {table} {row}")).await?;
    assert_eq!(
        (second.code, second.constraint),
        ("23505".to_owned(), Some(format!("{table}_pkey")))
    );
    let check = format!("{table}_singleton_check");
    let other = format!("UPDATE {table} SET singleton = false");
    each_breaks_its_check(pool, &[(&check, other)]).await?;
    for statement in [
        format!("DELETE FROM {table}"),
        format!("DELETE FROM {table} WHERE false"),
        format!("TRUNCATE {table}"),
    ] {
        assert_eq!(refusal(pool, &statement).await?.code, REFUSED, "{statement}");
    }
    assert_eq!(count(pool, table).await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_running_total_is_one_row_for_ever() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let row = "(btc_amount) VALUES (0)";
    is_one_row_for_ever(cluster.write_model(), "buy_order_running_total", row).await
}

#[tokio::test]
async fn the_lease_of_the_relays_is_one_row_for_ever_and_free_at_first() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let free: bool = sqlx::query_scalar("SELECT holder IS NULL AND held_until < now() FROM relay_lease")
        .fetch_one(cluster.write_model())
        .await?;
    assert!(free);
    is_one_row_for_ever(cluster.write_model(), "relay_lease", "DEFAULT VALUES").await
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
    let pool = cluster.write_model();
    for (column, value) in [
        ("currency_amount", "0"),
        ("currency_amount", "-1"),
        ("currency_amount", "1000000000"),
        ("btc_rate", "0"),
        ("btc_amount", "0"),
        ("btc_amount", "100.00000001"),
    ] {
        let check = format!("buy_order_{column}_check");
        each_breaks_its_check(pool, &[(&check, order(&[(column, value)]))]).await?;
    }
    each_breaks_its_check(
        pool,
        &[
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
    let request = [("currency_amount", "123.45"), ("idempotence_key", KEY)];
    run(pool, order(&request)).await?;
    for amount in ["123.45", "123.450", "'123.45'"] {
        let repeat = order(&[("currency_amount", amount), ("idempotence_key", KEY)]);
        let refused = refusal(pool, &repeat).await?;
        assert_eq!(
            refused.constraint.as_deref(),
            Some("buy_order_request_key"),
            "{amount}"
        );
    }
    sqlx::query("INSERT INTO client (email) VALUES ('second@example.com')")
        .execute(pool)
        .await?;
    // A request that differs in one part is another request. The first of two values counts.
    for other in [
        ("client_id", "2"),
        ("currency_id", "2"),
        ("currency_amount", "123.46"),
        ("idempotence_key", "gen_random_uuid()"),
    ] {
        run(pool, order(&[&[other], request.as_slice()].concat())).await?;
    }
    assert_eq!(count(pool, "buy_order").await?, 5);
    Ok(())
}

#[tokio::test]
async fn an_order_has_all_its_parts_and_names_what_there_is() -> anyhow::Result<()> {
    const NOT_NULL: &str = "23502";
    let cluster = databases().await?;
    let pool = cluster.write_model();
    for column in COLUMNS {
        let refused = refusal(pool, &order(&[(column, "NULL")])).await?;
        assert_eq!(refused.code, NOT_NULL, "{column}");
        assert!(refused.message.contains(column), "{}", refused.message);
    }
    for (column, constraint) in [
        ("client_id", "buy_order_client_id_fkey"),
        ("currency_id", "buy_order_currency_id_fkey"),
    ] {
        let refused = refusal(pool, &order(&[(column, "99")])).await?;
        assert_eq!(refused.constraint.as_deref(), Some(constraint));
    }
    run(pool, order(&[("external_id", EXTERNAL_ID)])).await?;
    let refused = refusal(pool, &order(&[("external_id", EXTERNAL_ID)])).await?;
    assert_eq!(refused.constraint.as_deref(), Some("buy_order_external_id_key"));
    Ok(())
}

fn message(kind: &str, routing_key: &str, message_id: &str, payload: &str) -> String {
    format!(
        "INSERT INTO outbox (type, routing_key, message_id, payload) VALUES ({kind}, {routing_key}, {message_id}, {payload})"
    )
}

#[tokio::test]
async fn the_outbox_takes_messages_of_any_kind_that_can_be_sent() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let id = "gen_random_uuid()";
    let longest = "repeat('x', 255)";
    run(pool, message(longest, longest, id, "repeat('x', 65536)")).await?;
    // In bytes, as in the broker and the consumers.
    let too_long = "repeat('x', 254) || 'é'";
    each_breaks_its_check(
        pool,
        &[
            ("outbox_type_check", message("''", "'r'", id, "'{}'")),
            ("outbox_type_check", message(too_long, "'r'", id, "'{}'")),
            ("outbox_routing_key_check", message("'t'", "''", id, "'{}'")),
            ("outbox_routing_key_check", message("'t'", too_long, id, "'{}'")),
            (
                "outbox_payload_check",
                message("'t'", "'r'", id, "repeat('x', 65535) || 'é'"),
            ),
        ],
    )
    .await?;
    for missing in [
        message("NULL", "'r'", id, "'{}'"),
        message("'t'", "NULL", id, "'{}'"),
        message("'t'", "'r'", "NULL", "'{}'"),
        message("'t'", "'r'", id, "NULL"),
    ] {
        assert_eq!(refusal(pool, &missing).await?.code, "23502", "{missing}");
    }
    assert_eq!(
        sqlx::query("DELETE FROM outbox")
            .execute(pool)
            .await?
            .rows_affected(),
        1
    );
    Ok(())
}

#[tokio::test]
async fn ids_are_drawn_by_the_database_alone() -> anyhow::Result<()> {
    const GENERATED_ALWAYS: &str = "428C9";
    let cluster = databases().await?;
    for statement in [
        "INSERT INTO buy_order (id, external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
         VALUES (7, gen_random_uuid(), 1, 1, 1, gen_random_uuid(), 1, 1)",
        "INSERT INTO outbox (id, type, routing_key, message_id, payload) VALUES (7, 't', 'r', gen_random_uuid(), '{}')",
        "INSERT INTO client (id, email) VALUES (7, 'a@b')",
        "INSERT INTO currency (id, iso3, dp) VALUES (7, 'CHF', 2)",
    ] {
        assert_eq!(refusal(cluster.write_model(), statement).await?.code, GENERATED_ALWAYS, "{statement}");
    }
    Ok(())
}

#[tokio::test]
async fn every_table_column_view_and_function_is_commented() -> anyhow::Result<()> {
    let cluster = databases().await?;
    assert_eq!(uncommented(cluster.write_model()).await?, Vec::<String>::new());
    Ok(())
}
