//! Every statement of this service, whatever PostgreSQL knew of the tables when it made the plan that it keeps: what is asserted is the work
//! that the database does once there are many orders.

use std::time::Duration;

use anyhow::Context as _;
use cluster::plans::{Bounded, Statistics, keep_within};
use cluster::{Cluster, Options};
use create_buy_order::db::{self, Locked, history, outbox};
use create_buy_order::order::{self, CLIENT_ID, Draft, OrderRequest};
use opentelemetry::Context;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

const ORDERS: u64 = 50_000;

/// Orders with keys, that are their external ids, and events. What refers to what is not checked, to be quick.
const FILL: &str = "
    SET session_replication_role = replica;
    INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, btc_rate, btc_amount)
    SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid, 1, currency.id, 1, 48478.88, 0.00000001
      FROM currency, generate_series(1, 50000) AS number WHERE iso3 = 'USD' ORDER BY number;
    INSERT INTO buy_order_idempotence_cache (client_id, currency_id, currency_amount, idempotence_key, buy_order_id)
    SELECT client_id, currency_id, currency_amount, external_id, id FROM buy_order;
    INSERT INTO outbox (buy_order_id) SELECT id FROM buy_order ORDER BY id;
    SET session_replication_role = origin";

fn draft() -> anyhow::Result<Draft> {
    let (amount, rate) = ("1.00".parse()?, "48478.88".parse()?);
    Ok(Draft {
        request: OrderRequest {
            client_id: CLIENT_ID,
            currency: common::money::Currency::Usd,
            amount,
            idempotence_key: Uuid::new_v4(),
        },
        external_id: Uuid::new_v4(),
        rate,
        btc_amount: order::btc_amount(amount, rate).context("too much")?,
        trace: Context::new(),
    })
}

/// A session like a service's, in which every statement of the service was made once while there was no order.
async fn everything_prepared(cluster: &Cluster) -> anyhow::Result<PgConnection> {
    const LEASE: Duration = Duration::from_secs(8);
    let options = cluster.addresses().write_model.options();
    let options = options.options(common::database::SESSION_SETTINGS);
    let mut session = PgConnection::connect_with(&options).await?;
    let session_ref = &mut session;
    let draft = draft()?;
    let now = OffsetDateTime::now_utc();
    db::look_up(session_ref, &[draft.request]).await?;
    db::missing_currencies(session_ref).await?;
    outbox::claim(session_ref, 1, LEASE).await?;
    outbox::renew(session_ref, &[1], now, LEASE).await?;
    outbox::remove(session_ref, &[1], now).await?;
    outbox::release(session_ref, &[1], now).await?;
    outbox::add_again(session_ref, 0, 1, 1).await?;
    outbox::count_through(session_ref, 1).await?;
    outbox::standing(session_ref).await?;
    history::end(session_ref).await?;
    history::next_range(session_ref, 0, 1, 1).await?;
    history::ids(session_ref, 1, 1, None).await?;
    let mut locked = Locked::begin(session_ref).await?;
    db::write_batch(&mut locked, &[draft]).await?;
    locked.rollback().await?;
    Ok(session)
}

/// `{…}` of as many values as there are drafts.
fn array(drafts: u64, value: impl Fn(u64) -> String) -> String {
    let values: Vec<String> = (0..drafts).map(value).collect();
    format!("{{{}}}", values.join(","))
}

fn new_orders(drafts: u64) -> Bounded {
    let same = |value: &'static str| array(drafts, |_| value.to_owned());
    let new = || array(drafts, |_| Uuid::new_v4().to_string());
    Bounded {
        statement: "WITH draft AS MATERIALIZED",
        values: vec![
            array(drafts, |place| place.to_string()),
            new(),
            same("1"),
            same("USD"),
            same("1.00"),
            new(),
            same("48478.88"),
            same("0.00000001"),
            same("NULL"),
            same("NULL"),
        ],
        rows: drafts,
    }
}

fn bounds(middle: i64) -> Vec<Bounded> {
    const TIME: &str = "2026-11-23 15:37:32Z";
    let claimed = array(100, |place| (place + 1000).to_string());
    let key = "{00000000-0000-4000-8000-000000001000}";
    let after_middle = (middle + 99).to_string();
    let middle = middle.to_string();
    vec![
        Bounded::new("asked.place - 1 AS place", &["{1}", "{USD}", "{1.00}", key], 1),
        new_orders(1),
        new_orders(500),
        Bounded::new("SELECT iso3::text FROM currency", &[], 3),
        Bounded::new("WITH claimed AS", &["100", "8"], 100),
        Bounded::new("WITH renewed AS", &[&claimed, TIME, "8"], 100),
        Bounded::new("DELETE FROM outbox", &[&claimed, TIME], 100),
        Bounded::new("UPDATE outbox SET claimed_until = NULL", &[&claimed, TIME], 100),
        Bounded::new("WITH added AS", &[&middle, &after_middle, "50"], 50),
        Bounded::new("SELECT count(*) FROM outbox WHERE id <= $1", &["100"], 100),
        // Counts them all, which are few but in an outage.
        Bounded::new("oldest.age_s", &[], ORDERS),
        Bounded::new(
            "coalesce((SELECT id FROM buy_order ORDER BY id LIMIT 1), 1)",
            &[],
            1,
        ),
        Bounded::new(
            "SELECT max(id) FROM (SELECT id",
            &[&middle, "50000000", "100"],
            100,
        ),
        Bounded::new("WITH line AS", &[&middle, &after_middle], 100),
        Bounded::new(
            "SELECT (SELECT id FROM buy_order WHERE id BETWEEN",
            &[&middle, &after_middle, TIME],
            100,
        ),
    ]
}

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
        keep_within(&mut session, &bounds(middle))
            .await
            .with_context(|| format!("statistics: {statistics:?}"))?;
    }
    Ok(())
}
