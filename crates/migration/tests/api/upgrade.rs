//! The upgrade of a write model that older releases have filled, to version 3, and of one in use, to version 6.

use std::time::Duration;

use cluster::{Cluster, Options, create_owner, wait_until};
use common::buy_order_event::BuyOrderCreated;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow as _, PgPool, Row as _};
use time::OffsetDateTime;

use crate::outbox::Message;
use crate::support::{Once, Refusal, applied, databases, failure, migrations, once, refusal, undo_version_6};

mod write_model {
    refinery::embed_migrations!("../../migrations/write_model");
}

/// The last version of the older releases.
const BEFORE: i64 = 2;

/// `object_not_in_prerequisite_state`: transient for the services, so that clients are told to retry.
const NOT_IN_STATE: &str = "55000";

const REFUSES_OLDER_RELEASES: &str = "this write model was upgraded to version 3, and releases that know versions 1 and 2 cannot write to it: \
                                      start the newer release again, or restore a backup";

/// A cluster whose write model has version 2, as refinery leaves it, and whose read model is empty.
async fn before_the_upgrade() -> anyhow::Result<Cluster> {
    const HISTORY: &str = "CREATE TABLE refinery_schema_history (
        version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255))";
    const APPLIED: &str =
        "INSERT INTO refinery_schema_history VALUES ($1::int, $2, '2026-11-23T15:37:32.531853Z', $3)";
    let cluster = Cluster::start(Options::servers_only()).await?;
    let pool = cluster.write_model();
    sqlx::raw_sql(HISTORY).execute(pool).await?;
    for migration in write_model::migrations::runner().get_migrations() {
        if i64::from(migration.version()) > BEFORE {
            continue;
        }
        let sql = migration.sql().unwrap_or_default().to_owned();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await?;
        sqlx::query(APPLIED)
            .bind(i64::from(migration.version()))
            .bind(migration.name())
            .bind(migration.checksum().to_string())
            .execute(pool)
            .await?;
    }
    create_owner(&cluster.addresses().write_model).await?;
    Ok(cluster)
}

/// Runs `migration --once`, which must apply all later versions.
async fn upgrade(cluster: &Cluster) -> anyhow::Result<()> {
    let (exit_code, events) = once(cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    let newer = migrations("write_model")?.saturating_sub(BEFORE.unsigned_abs());
    assert!(
        applied(&events).contains(&("write_model".to_owned(), newer)),
        "{events:?}"
    );
    Ok(())
}

async fn run(pool: &PgPool, statements: &'static str) -> anyhow::Result<()> {
    sqlx::raw_sql(statements).execute(pool).await?;
    Ok(())
}

async fn number(pool: &PgPool, statement: &'static str) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(statement).fetch_one(pool).await?)
}

/// As after years of use: amounts at both limits of their columns, two clients, keys used for several amounts, gaps in the ids, ids lost to
/// rollbacks, published events that are gone, events claimed now and long ago, and one order with two events. Copies are kept in a schema that
/// no migration reads.
const FILL: &str = "
    INSERT INTO client (email) VALUES ('second@example.com');

    INSERT INTO buy_order (created_at, external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT timestamptz '2026-01-01 00:00:00Z' + number * interval '1.234500 s', gen_random_uuid(), 1 + number % 2, 1 + number % 3,
           CASE number % 1000 WHEN 0 THEN 999999999.99 WHEN 1 THEN 0.01 ELSE 1 + number % 977 + (number % 100) * 0.01 END,
           CASE number % 1000 WHEN 0 THEN 999999999999.99999999 WHEN 1 THEN 0.00000001 ELSE 48478.88 + number * 0.00000001 END,
           CASE number % 1000 WHEN 1 THEN 0.00000001 ELSE 0.0004 + (number % 10000) * 0.00000001 END
      FROM generate_series(1, 60000) AS number;
    SELECT nextval('buy_order_id_seq') FROM generate_series(1, 5000);
    INSERT INTO buy_order (created_at, external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT timestamptz '2026-06-01 00:00:00Z' + number * interval '1.000001 s', gen_random_uuid(), 1, 1, 123.45, 48478.88, 0.00054647
      FROM generate_series(1, 40000) AS number;

    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT client_id, currency_id, currency_amount,
           CASE WHEN id <= 900 THEN '5fa733ae-82b4-4ac0-8478-35ff30dae879'::uuid ELSE gen_random_uuid() END, id
      FROM buy_order ORDER BY random();

    UPDATE buy_order_running_total SET btc_amount = (SELECT sum(btc_amount) FROM buy_order);

    INSERT INTO outbox (buy_order_id) SELECT id FROM buy_order ORDER BY id LIMIT 500;
    DELETE FROM outbox;
    INSERT INTO outbox (buy_order_id, traceparent, tracestate, created_at)
    SELECT id,
           CASE WHEN id % 3 > 0 THEN '00-4bf92f3577b34da6a3ce929d0e0e4736-' || lpad(to_hex(id), 16, '0') || '-01' END,
           CASE WHEN id % 3 > 1 THEN 'vendor=' || id END,
           created_at
      FROM buy_order WHERE id > 100000 OR id <= 1000 OR id = 10 ORDER BY id DESC;
    INSERT INTO outbox (buy_order_id) VALUES (10);
    UPDATE outbox SET claimed_until = clock_timestamp() + interval '8 s' WHERE id % 7 = 0;
    UPDATE outbox SET claimed_until = clock_timestamp() - interval '1 hour' WHERE id % 7 = 1;

    SELECT nextval('buy_order_id_seq') FROM generate_series(1, 7);

    CREATE SCHEMA kept;
    CREATE TABLE kept.buy_order AS SELECT * FROM buy_order;
    CREATE TABLE kept.keys AS SELECT * FROM buy_order_idempotence_cache;
    CREATE TABLE kept.outbox AS SELECT * FROM outbox;
    CREATE TABLE kept.total AS SELECT * FROM buy_order_running_total;
    CREATE TABLE kept.drawn AS SELECT last_value FROM buy_order_id_seq";

#[tokio::test]
async fn no_order_key_or_event_is_lost_doubled_or_changed() -> anyhow::Result<()> {
    let cluster = before_the_upgrade().await?;
    let pool = cluster.write_model();
    run(pool, FILL).await?;
    upgrade(&cluster).await?;
    orders_and_total_are_as_before(pool).await?;
    events_are_as_before(pool).await?;
    old_requests_are_repeats(pool).await?;
    a_new_order_comes_after_all(pool).await
}

async fn orders_and_total_are_as_before(pool: &PgPool) -> anyhow::Result<()> {
    // As text, to compare the scale of decimals, too.
    const DIFFERENT: &str = "
        SELECT count(*)
          FROM (SELECT buy_order.*, keys.idempotence_key FROM kept.buy_order LEFT JOIN kept.keys ON keys.buy_order_id = buy_order.id) AS before
          FULL JOIN buy_order AS now ON now.id = before.id
         WHERE ROW (before.id, before.created_at, before.external_id, before.client_id, before.currency_id, before.currency_amount,
                    before.idempotence_key, before.btc_rate, before.btc_amount)::text
            IS DISTINCT FROM
               ROW (now.id, now.created_at, now.external_id, now.client_id, now.currency_id, now.currency_amount,
                    now.idempotence_key, now.btc_rate, now.btc_amount)::text";
    assert_eq!(number(pool, DIFFERENT).await?, 0);
    assert_eq!(
        number(pool, "SELECT count(*) FROM kept.buy_order").await?,
        100_000
    );
    assert_eq!(number(pool, "SELECT count(*) FROM buy_order").await?, 100_000);
    let totals: Vec<(bool, String)> =
        sqlx::query_as("SELECT singleton, btc_amount::text FROM kept.total UNION ALL SELECT singleton, btc_amount::text FROM buy_order_running_total")
            .fetch_all(pool)
            .await?;
    let [before, now] = totals.as_slice() else {
        anyhow::bail!("not one total each: {totals:?}")
    };
    assert_eq!(before, now);
    Ok(())
}

/// A message, and when it was written.
#[derive(Debug, PartialEq, Eq)]
struct Unsent {
    message: Message,
    created_at: OffsetDateTime,
}

common::from_row!(Unsent { created_at; message });

async fn events_are_as_before(pool: &PgPool) -> anyhow::Result<()> {
    const BEFORE: &str = "
        SELECT placed.*, currency.iso3 AS currency_iso3, unsent.traceparent, unsent.tracestate, unsent.created_at AS written_at
          FROM kept.outbox AS unsent
          JOIN kept.buy_order AS placed ON placed.id = unsent.buy_order_id
          JOIN currency ON currency.id = placed.currency_id
         ORDER BY unsent.id";
    const NOW: &str = "SELECT * FROM outbox ORDER BY id";
    let before = sqlx::query(BEFORE).fetch_all(pool).await?;
    let before: Vec<Unsent> = before.iter().map(unsent).collect::<anyhow::Result<_>>()?;
    let now: Vec<Unsent> = sqlx::query_as(NOW).fetch_all(pool).await?;
    assert!(before.len() > 5_000, "{}", before.len());
    assert_eq!(before.len(), now.len());
    for (before, now) in before.iter().zip(&now) {
        assert_eq!(before, now);
    }
    Ok(())
}

fn unsent(row: &PgRow) -> anyhow::Result<Unsent> {
    let order = BuyOrderCreated::from_row(row)?;
    Ok(Unsent {
        message: Message::created(&order, row.try_get("traceparent")?, row.try_get("tracestate")?)?,
        created_at: row.try_get("written_at")?,
    })
}

/// Repeats each old request as a client would: with a new external id and another price.
async fn old_requests_are_repeats(pool: &PgPool) -> anyhow::Result<()> {
    const AGAIN: &str = "
        SELECT count(*), count(*) FILTER (
                   WHERE ROW (answer.verdict, answer.id, answer.external_id, answer.created_at, answer.currency_amount, answer.btc_rate,
                              answer.btc_amount)
                         IS NOT DISTINCT FROM
                         ROW ('repeated', was.id, was.external_id, was.created_at, was.currency_amount, was.btc_rate, was.btc_amount))
          FROM (SELECT array_agg(buy_order_id ORDER BY buy_order_id) AS ids,
                       array_agg(gen_random_uuid()) AS external_ids,
                       array_agg(client_id ORDER BY buy_order_id) AS client_ids,
                       array_agg(iso3::text ORDER BY buy_order_id) AS currencies,
                       array_agg(currency_amount ORDER BY buy_order_id) AS amounts,
                       array_agg(idempotence_key ORDER BY buy_order_id) AS keys,
                       array_agg(7.0) AS rates,
                       array_agg(0.00000001) AS btc_amounts,
                       array_agg(NULL::text) AS traces
                  FROM kept.keys JOIN currency ON currency.id = currency_id
                 GROUP BY buy_order_id / 500) AS asked
         CROSS JOIN LATERAL accept_orders(external_ids, client_ids, currencies, amounts, keys, rates, btc_amounts, traces, traces) AS answer
          LEFT JOIN kept.buy_order AS was ON was.id = ids[answer.index + 1]";
    let answers: (i64, i64) = sqlx::query_as(AGAIN).fetch_one(pool).await?;
    assert_eq!(answers, (100_000, 100_000));
    assert_eq!(number(pool, "SELECT count(*) FROM buy_order").await?, 100_000);
    Ok(())
}

const NEW_ORDER: &str = "
    SELECT verdict, id FROM accept_orders(ARRAY[gen_random_uuid()], ARRAY[1], ARRAY['USD'], ARRAY[123.45], ARRAY[gen_random_uuid()],
                                          ARRAY[48478.88], ARRAY[0.00254647], ARRAY[NULL], ARRAY[NULL])";

async fn a_new_order_comes_after_all(pool: &PgPool) -> anyhow::Result<()> {
    let drawn = number(pool, "SELECT last_value FROM kept.drawn").await?;
    let highest = number(pool, "SELECT max(id) FROM kept.buy_order").await?;
    assert_eq!(drawn, highest + 7);
    let (verdict, id): (String, i64) = sqlx::query_as(NEW_ORDER).fetch_one(pool).await?;
    assert_eq!(verdict, "created");
    assert!(id > drawn, "{id} is not above {drawn}");
    Ok(())
}

const PLACE: &str = "
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT gen_random_uuid(), 1, 1, number, 48478.88, 0.00254647 FROM generate_series(1, 3) AS number;
    UPDATE buy_order_running_total SET btc_amount = 3 * 0.00254647;
    INSERT INTO outbox (buy_order_id) SELECT id FROM buy_order";

const REMEMBER: &str = "
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT client_id, currency_id, currency_amount, gen_random_uuid(), id FROM buy_order";

#[tokio::test]
async fn ids_go_on_where_they_were() -> anyhow::Result<()> {
    for (fill, next) in [
        (vec![], 1),
        (vec![PLACE, REMEMBER], 4),
        (vec![PLACE, REMEMBER, "SELECT setval('buy_order_id_seq', 50)"], 51),
        // As after a restore: the sequence has the next number, and not the last.
        (
            vec![PLACE, REMEMBER, "SELECT setval('buy_order_id_seq', 60, false)"],
            60,
        ),
    ] {
        let cluster = before_the_upgrade().await?;
        for statements in fill {
            run(cluster.write_model(), statements).await?;
        }
        upgrade(&cluster).await?;
        let answer: (String, i64) = sqlx::query_as(NEW_ORDER).fetch_one(cluster.write_model()).await?;
        assert_eq!(answer, ("created".to_owned(), next));
    }
    Ok(())
}

/// Every table with its columns, indexes, files and rows.
async fn everything(pool: &PgPool) -> anyhow::Result<Vec<String>> {
    const EVERYTHING: &str = "
        SELECT relname || relkind::text || relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT attrelid::regclass || '.' || attname || atttypid::regtype FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
                   WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT version || name || checksum FROM refinery_schema_history
        UNION ALL SELECT buy_order::text FROM buy_order
        UNION ALL SELECT buy_order_idempotence_cache::text FROM buy_order_idempotence_cache
        UNION ALL SELECT outbox::text FROM outbox
        UNION ALL SELECT buy_order_running_total::text FROM buy_order_running_total
        UNION ALL SELECT last_value::text || is_called FROM buy_order_id_seq
        UNION ALL SELECT last_value::text || is_called FROM outbox_id_seq
        ORDER BY 1";
    Ok(sqlx::query_scalar(EVERYTHING).fetch_all(pool).await?)
}

#[tokio::test]
async fn an_order_that_no_service_wrote_stops_the_upgrade_and_nothing_is_changed() -> anyhow::Result<()> {
    const WITHOUT_A_KEY: &str = "
        INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT client_id, currency_id, currency_amount, gen_random_uuid(), id FROM buy_order WHERE id <> 2";
    const WITH_TWO: &str = "
        INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT client_id, currency_id, currency_amount, gen_random_uuid(), id FROM buy_order WHERE id = 2";
    const WITH_THE_KEY_OF_ANOTHER_REQUEST: &str = "
        INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
        SELECT client_id, currency_id, currency_amount + CASE id WHEN 2 THEN 0.01 ELSE 0 END, gen_random_uuid(), id FROM buy_order";
    for (fill, fault) in [
        (vec![PLACE, WITHOUT_A_KEY], "idempotence_key"),
        (vec![PLACE, REMEMBER, WITH_TWO], "buy_order_pkey"),
        (vec![PLACE, WITH_THE_KEY_OF_ANOTHER_REQUEST], "idempotence_key"),
    ] {
        let cluster = before_the_upgrade().await?;
        let pool = cluster.write_model();
        for statements in fill {
            run(pool, statements).await?;
        }
        let before = everything(pool).await?;
        let (exit_code, events) = once(&cluster).await?;
        assert_eq!(exit_code, Some(1), "{events:?}");
        assert!(failure(&events).contains(fault), "{events:?}");
        assert_eq!(everything(pool).await?, before);
    }
    Ok(())
}

#[tokio::test]
async fn a_release_that_was_rolled_back_is_told_so() -> anyhow::Result<()> {
    let cluster = before_the_upgrade().await?;
    let pool = cluster.write_model();
    upgrade(&cluster).await?;
    for statement in [
        "SELECT * FROM buy_order_idempotence_cache",
        "SELECT count(*) FROM buy_order_idempotence_cache",
        // The query of those releases.
        "SELECT cache.buy_order_id FROM buy_order_idempotence_cache AS cache
          WHERE cache.client_id = 1 AND cache.currency_id = 1 AND cache.currency_amount = 123.45
            AND cache.idempotence_key = '5fa733ae-82b4-4ac0-8478-35ff30dae879'",
    ] {
        let told = Refusal {
            code: NOT_IN_STATE.to_owned(),
            constraint: None,
            message: REFUSES_OLDER_RELEASES.to_owned(),
        };
        assert_eq!(refusal(pool, statement).await?, told, "{statement}");
    }
    Ok(())
}

async fn migration_waits(pool: &PgPool) -> anyhow::Result<()> {
    wait_until("the migration waits", Duration::from_secs(60), async || {
        const WAITS: &str = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'migration' AND wait_event_type = 'Lock' AND wait_event = 'relation'";
        Ok(number(pool, WAITS).await? == 1)
    })
    .await
}

#[tokio::test]
async fn what_a_busy_write_model_holds_is_waited_for() -> anyhow::Result<()> {
    let cluster = before_the_upgrade().await?;
    let pool = cluster.write_model();
    for statements in [PLACE, REMEMBER] {
        run(pool, statements).await?;
    }
    // A writer within a batch.
    let mut writer = pool.begin().await?;
    sqlx::raw_sql("SELECT FROM buy_order_running_total FOR UPDATE")
        .execute(&mut *writer)
        .await?;
    let run = Once::start(&cluster)?;
    migration_waits(pool).await?;
    sqlx::raw_sql(
        "WITH placed AS (
             INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
             VALUES (gen_random_uuid(), 1, 1, 9, 48478.88, 0.00254647) RETURNING id
         ), keyed AS (
             INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
             SELECT 1, 1, 9, gen_random_uuid(), id FROM placed
         ), counted AS (
             UPDATE buy_order_running_total SET btc_amount = btc_amount + 0.00254647
         )
         INSERT INTO outbox (buy_order_id) SELECT id FROM placed",
    )
    .execute(&mut *writer)
    .await?;
    writer.commit().await?;
    let (exit_code, events) = run.end().await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    let kept = [
        number(pool, "SELECT count(*) FROM buy_order").await?,
        number(pool, "SELECT count(*) FROM outbox").await?,
    ];
    assert_eq!(kept, [4, 4]);
    let sum: bool = sqlx::query_scalar(
        "SELECT btc_amount = (SELECT sum(btc_amount) FROM buy_order) FROM buy_order_running_total",
    )
    .fetch_one(pool)
    .await?;
    assert!(sum);
    Ok(())
}

/// A call of accept_orders has locked the total, and has yet to insert its orders.
#[tokio::test]
async fn version_6_and_a_writer_do_not_wait_for_each_other() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    undo_version_6(pool).await?;
    let mut writer = pool.begin().await?;
    sqlx::raw_sql("SELECT FROM buy_order_running_total FOR UPDATE")
        .execute(&mut *writer)
        .await?;
    let run = Once::start(&cluster)?;
    migration_waits(pool).await?;
    sqlx::raw_sql(
        "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
         VALUES (gen_random_uuid(), 1, 1, 9, gen_random_uuid(), 48478.88, 0.00254647)",
    )
    .execute(&mut *writer)
    .await?;
    writer.commit().await?;
    let (exit_code, events) = run.end().await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(failure(&events), "", "{events:?}");
    assert_eq!(number(pool, "SELECT count(*) FROM buy_order").await?, 1);
    Ok(())
}
