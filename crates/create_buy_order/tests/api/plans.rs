//! The cost of every statement of this service with many orders, whatever statistics PostgreSQL had when it made the plan that it keeps. The
//! statements within SQL functions are checked too.

use std::time::Duration;

use anyhow::Context as _;
use cluster::plans::{Bounded, Statistics, keep_within, keep_work_within};
use cluster::{Cluster, Options};
use common::money::Currency;
use create_buy_order::db::{self, history, lease, outbox, voids};
use create_buy_order::order::{self, Draft, RequestIdentity};
use opentelemetry::Context;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

const ORDERS: u64 = 50_000;

/// Orders, whose keys are their external ids, half of them voided, and their messages. Those of the last hundred are not counted yet for
/// their client. Foreign keys are not checked, to be fast.
const FILL: &str = "
    SET session_replication_role = replica;
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
    SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 1, currency.id, 1,
           ('00000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 48478.88, 0.00000001
      FROM currency, generate_series(1, 50000) AS number WHERE iso3 = 'USD' ORDER BY number;
    INSERT INTO outbox (type, routing_key, message_id, payload)
    SELECT 'buy_order_created', 'buy_order', external_id, buy_order_created_payload(buy_order, 'USD') FROM buy_order ORDER BY id;
    INSERT INTO buy_order_void (buy_order_id, reason) SELECT id, 'a mistake' FROM buy_order WHERE id % 2 = 0 ORDER BY id;
    UPDATE buy_order_running_total SET btc_amount = 0.0005, counted_to = (SELECT max(id) FROM buy_order) - 100;
    INSERT INTO client_running_total (client_id, btc_amount) VALUES (1, 0.0002495) ON CONFLICT DO NOTHING;
    SET session_replication_role = origin";

pub(crate) fn draft() -> anyhow::Result<Draft> {
    let (amount, rate) = ("1.00".parse()?, "48478.88".parse()?);
    Ok(Draft {
        identity: RequestIdentity {
            client_id: 1,
            currency: Currency::Usd,
            amount,
            idempotence_key: Uuid::new_v4(),
        },
        external_id: Uuid::new_v4(),
        rate,
        btc_amount: order::btc_amount(amount, rate).context("too much")?,
        trace: Context::new(),
    })
}

/// A session like a service's that has executed every statement of the service once, while there were no orders.
async fn everything_prepared(cluster: &Cluster) -> anyhow::Result<PgConnection> {
    const TERM: Duration = Duration::from_secs(5);
    let options = cluster.addresses().write_model.options();
    let options = options.options(common::database::SESSION_SETTINGS);
    let mut session = PgConnection::connect_with(&options).await?;
    let session_ref = &mut session;
    let draft = draft()?;
    db::look_up(session_ref, &[draft.identity]).await?;
    db::missing_currencies(session_ref).await?;
    db::count_orders_of_clients(session_ref).await?;
    outbox::oldest(session_ref, 1).await?;
    outbox::gauges(session_ref).await?;
    let extent = history::Extent {
        first_id: 1,
        last_id: 1,
        as_of_epoch_us: 1,
    };
    history::next_range(session_ref, 0, extent, 1).await?;
    history::ids(session_ref, 1, 1, None).await?;
    history::events(session_ref, 0, 1, 1).await?;
    history::void_events(session_ref, 0, 1, None).await?;
    voids::void(session_ref, Uuid::nil(), "nothing").await?;
    outbox::delete(session_ref, &[1]).await?;
    lease::hold(session_ref, Uuid::nil(), TERM).await?;
    lease::release(session_ref, Uuid::nil()).await?;
    let too_many = Draft {
        btc_amount: "60".parse()?,
        ..self::draft()?
    };
    sqlx::raw_sql("BEGIN").execute(&mut *session_ref).await?;
    let order = draft.external_id;
    db::accept_orders(session_ref, &[draft], Some("1".parse()?)).await?;
    voids::void(session_ref, order, "a mistake").await?;
    // The statement that decides one order at a time.
    db::accept_orders(session_ref, &[too_many.clone(), too_many], None).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut *session_ref).await?;
    Ok(session)
}

/// An array literal with one value per draft.
fn array(drafts: u64, value: impl Fn(u64) -> String) -> String {
    let values: Vec<String> = (0..drafts).map(value).collect();
    format!("{{{}}}", values.join(","))
}

/// A call of `accept_orders` with this many drafts, of so much BTC each, and this limit of a client.
fn accepted(
    drafts: u64,
    key: impl Fn(u64) -> String,
    btc_amount: &'static str,
    client_limit: &'static str,
) -> Bounded {
    let same = |value: &'static str| array(drafts, |_| value.to_owned());
    Bounded {
        statement: "FROM accept_orders($1",
        values: vec![
            array(drafts, |_| Uuid::new_v4().to_string()),
            same("1"),
            same("USD"),
            same("1.00"),
            array(drafts, key),
            same("48478.88"),
            same(btc_amount),
            same("NULL"),
            same("NULL"),
            client_limit.to_owned(),
        ],
        rows: drafts,
    }
}

fn bounds(middle: i64) -> Vec<Bounded> {
    const TIME: &str = "2026-11-23 15:37:32Z";
    const SMALL: &str = "0.00000001";
    const NO_LIMIT: &str = "NULL";
    let new = |_| Uuid::new_v4().to_string();
    let known = |number: u64| format!("00000000-0000-4000-8000-{:012x}", 1000 + number);
    // Repeats alone would be answered without the lock.
    let mixed = |number: u64| if number == 0 { new(0) } else { known(number) };
    let oldest = array(100, |place| (place + 1000).to_string());
    let holder = Uuid::nil().to_string();
    let after_middle = (middle + 99).to_string();
    let middle = middle.to_string();
    let key = array(1, known);
    vec![
        Bounded::new("asked.index - 1 AS index", &["{1}", "{USD}", "{1.00}", &key], 1),
        Bounded::new("SELECT iso3::text FROM currency", &[], Currency::ALL.len() as u64),
        // The orders that are not counted yet are counted first.
        Bounded {
            rows: 100,
            ..accepted(1, new, SMALL, "100")
        },
        accepted(500, new, SMALL, "100"),
        accepted(500, mixed, SMALL, "100"),
        accepted(500, new, SMALL, NO_LIMIT),
        Bounded::new("SELECT count_orders_of_clients", &["50"], 50),
        accepted(1, known, SMALL, NO_LIMIT),
        accepted(500, known, SMALL, NO_LIMIT),
        accepted(500, mixed, SMALL, NO_LIMIT),
        // Not all of them fit, so they are decided one at a time.
        accepted(500, new, "0.3", "10"),
        accepted(500, new, "0.3", NO_LIMIT),
        accepted(500, mixed, "0.3", NO_LIMIT),
        Bounded::new("FROM void_order($1", &[&known(1), "a mistake"], 1),
        Bounded::new("FROM void_order($1", &[&known(2), "a mistake"], 1),
        Bounded::new(
            "void.message_id",
            &[
                &middle,
                &after_middle,
                "-infinity",
                "buy_order_voided",
                "buy_order",
            ],
            100,
        ),
        Bounded::new("FROM outbox ORDER BY id LIMIT $1", &["100"], 100),
        // Counts all messages. There are few, except in an outage.
        Bounded::new("oldest.age_s", &[], ORDERS),
        Bounded::new("DELETE FROM outbox", &[&oldest], 100),
        Bounded::new("SET holder = $1", &[&holder, "5"], 1),
        Bounded::new("SET holder = NULL", &[&holder], 1),
        Bounded::new(
            "SELECT max(id) FROM (SELECT id",
            &[&middle, "50000000", "100"],
            100,
        ),
        Bounded::new("WITH line AS", &[&middle, &after_middle, "9000000000000000"], 100),
        Bounded::new(
            "SELECT (SELECT id FROM buy_order WHERE id BETWEEN",
            &[&middle, &after_middle, TIME],
            100,
        ),
        Bounded::new(
            "SELECT placed.id, $4 AS type",
            &[&middle, "50000000", "100", "buy_order_created", "buy_order"],
            100,
        ),
    ]
}

/// Parts of the statements within `accept_orders`, and of the check that an order's client exists.
const WITHIN_FUNCTIONS: [&str; 11] = [
    "FROM buy_order_running_total FOR UPDATE",
    "sum(given.btc_amount) <= room",
    "AS left_over",
    "INSERT INTO client_running_total",
    "UPDATE buy_order_running_total SET counted_to",
    "UPDATE client_running_total",
    "INSERT INTO buy_order_void",
    "CROSS JOIN LATERAL accept_orders(",
    "WITH draft AS MATERIALIZED",
    "'no_client'",
    "FOR KEY SHARE",
];

#[tokio::test]
async fn whatever_was_known_of_the_tables_every_statement_looks_at_what_it_asks_for_alone()
-> anyhow::Result<()> {
    for statistics in Statistics::ALL {
        let cluster = Cluster::start(Options {
            services: Vec::new(),
            ..Options::default()
        })
        .await?;
        let model = cluster.write_model();
        statistics.set(model, FILL).await?;
        let mut session = everything_prepared(&cluster).await?;
        statistics.fill(model, FILL).await?;
        let middle: i64 = sqlx::query_scalar("SELECT id FROM buy_order ORDER BY id OFFSET 25000 LIMIT 1")
            .fetch_one(model)
            .await?;
        let of_statistics = || format!("statistics: {statistics:?}");
        // Two statements in one message and the one within lock_running_total, planned at each execution.
        let told = keep_work_within(&mut session, 1, history::end).await;
        assert_eq!(told.with_context(of_statistics)?.len(), 3);
        let told = keep_within(&mut session, &bounds(middle)).await;
        let told = told.with_context(of_statistics)?;
        for part in WITHIN_FUNCTIONS {
            assert!(told.iter().any(|text| text.contains(part)), "{part}: {told:#?}");
        }
    }
    Ok(())
}
