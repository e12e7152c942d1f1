//! Compares `accept_orders` and `void_order`, the only ways into the book and out of it, with a plain model of their rules.

mod model;
mod voids_and_limits;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Context as _;

use cluster::{blocked_sessions, lock_running_total, wait_until};
use common::buy_order_event::BuyOrderCreated;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::outbox::Message;
use crate::support::databases;
use model::{CAP, Draft, Model, RATE, Step, Verdict, draft, step};

/// The row of `accept_orders` for one draft.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Answer {
    index: i64,
    verdict: String,
    id: Option<i64>,
    external_id: Option<Uuid>,
    created_at: Option<OffsetDateTime>,
    currency_amount: Option<Decimal>,
    btc_rate: Option<Decimal>,
    btc_amount: Option<Decimal>,
    void_reason: Option<String>,
}

common::from_row!(Answer {
    index,
    verdict,
    id,
    external_id,
    created_at,
    currency_amount,
    btc_rate,
    btc_amount,
    void_reason
});

/// In the order of the drafts: one answer each, or the test fails.
async fn accept(connection: &mut PgConnection, drafts: &[Draft]) -> anyhow::Result<Vec<Answer>> {
    accept_within(connection, drafts, None).await
}

async fn accept_within(
    connection: &mut PgConnection,
    drafts: &[Draft],
    client_limit: Option<Decimal>,
) -> anyhow::Result<Vec<Answer>> {
    fn column<T>(drafts: &[Draft], part: impl FnMut(&Draft) -> T) -> Vec<T> {
        drafts.iter().map(part).collect()
    }
    let mut answers: Vec<Answer> =
        sqlx::query_as("SELECT * FROM accept_orders($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(column(drafts, |draft| draft.external_id))
            .bind(column(drafts, |draft| draft.request.client))
            .bind(column(drafts, |draft| draft.request.currency))
            .bind(column(drafts, Draft::amount))
            .bind(column(drafts, |draft| Uuid::from_u128(draft.request.key)))
            .bind(column(drafts, |_| Decimal::new(RATE, 8)))
            .bind(column(drafts, Draft::btc_amount))
            .bind(column(drafts, Draft::traceparent))
            .bind(column(drafts, Draft::tracestate))
            .bind(client_limit)
            .fetch_all(connection)
            .await?;
    answers.sort_by_key(|answer| answer.index);
    let indices: Vec<i64> = answers.iter().map(|answer| answer.index).collect();
    let wanted: Vec<i64> = (0..).take(drafts.len()).collect();
    anyhow::ensure!(indices == wanted, "not one answer a draft: {answers:?}");
    Ok(answers)
}

/// A stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    order: BuyOrderCreated,
    idempotence_key: Uuid,
}

common::from_row!(Stored { idempotence_key; order });

impl Stored {
    fn answer(&self, index: i64, verdict: &str) -> Answer {
        let order = &self.order;
        Answer {
            index,
            verdict: verdict.to_owned(),
            id: Some(order.id),
            external_id: Some(order.external_id),
            created_at: Some(order.created_at),
            currency_amount: Some(order.currency_amount.decimal()),
            btc_rate: Some(order.btc_rate.decimal()),
            btc_amount: Some(order.btc_amount.decimal()),
            void_reason: (verdict == "voided").then(|| reason(order.external_id)),
        }
    }

    fn is(&self, draft: &Draft) -> bool {
        let order = &self.order;
        order.external_id == draft.external_id
            && order.client_id == draft.request.client
            && order.currency_iso3 == draft.request.currency
            && order.currency_amount.decimal() == draft.amount()
            && self.idempotence_key == Uuid::from_u128(draft.request.key)
            && order.btc_rate.decimal() == Decimal::new(RATE, 8)
            && order.btc_amount.decimal() == draft.btc_amount()
    }
}

async fn stored(connection: &mut PgConnection) -> anyhow::Result<Vec<Stored>> {
    const ORDERS: &str = "SELECT buy_order.*, currency.iso3 AS currency_iso3 FROM buy_order JOIN currency ON currency.id = currency_id ORDER BY buy_order.id";
    Ok(sqlx::query_as(ORDERS).fetch_all(connection).await?)
}

async fn messages(connection: &mut PgConnection) -> anyhow::Result<Vec<Message>> {
    Ok(sqlx::query_as("SELECT * FROM outbox ORDER BY id")
        .fetch_all(connection)
        .await?)
}

/// Why the tests void an order: text that JSON has to escape.
fn reason(external_id: Uuid) -> String {
    format!("\"{external_id}\" was a mistake: 100 \\ ü")
}

#[derive(Debug, PartialEq, Eq)]
struct VoidAnswer {
    verdict: String,
    id: Option<i64>,
    reason: Option<String>,
    voided_at: Option<OffsetDateTime>,
}

common::from_row!(VoidAnswer {
    verdict,
    id,
    reason,
    voided_at
});

async fn void(connection: &mut PgConnection, external_id: Uuid, reason: &str) -> anyhow::Result<VoidAnswer> {
    Ok(sqlx::query_as("SELECT * FROM void_order($1, $2)")
        .bind(external_id)
        .bind(reason)
        .fetch_one(connection)
        .await?)
}

/// Voids an order twice, and an order that is none.
async fn compare_voids(connection: &mut PgConnection, model: &mut Model, place: usize) -> anyhow::Result<()> {
    let unknown = void(connection, Uuid::new_v4(), "it is not there").await?;
    anyhow::ensure!(unknown.verdict == "unknown", "{unknown:?}");
    let Some(order) = place
        .checked_rem(model.orders.len())
        .and_then(|place| model.orders.get(place))
    else {
        return Ok(());
    };
    let external_id = order.external_id;
    let first = void(connection, external_id, &reason(external_id)).await?;
    let is_new = model.voided.insert(external_id);
    anyhow::ensure!(
        first.verdict == if is_new { "voided" } else { "voided_before" }
            && first.reason == Some(reason(external_id)),
        "{first:?}"
    );
    let again = void(connection, external_id, "another reason").await?;
    let wanted = VoidAnswer {
        verdict: "voided_before".to_owned(),
        ..first
    };
    anyhow::ensure!(again == wanted, "{again:?} instead of {wanted:?}");
    compare_book(connection, model).await.map(drop)
}

/// Gives a batch to `accept_orders` and to the model, and compares all results.
async fn compare(connection: &mut PgConnection, model: &mut Model, drafts: &[Draft]) -> anyhow::Result<()> {
    compare_within(connection, model, drafts, None).await
}

async fn compare_within(
    connection: &mut PgConnection,
    model: &mut Model,
    drafts: &[Draft],
    client_limit: Option<Decimal>,
) -> anyhow::Result<()> {
    let answers = accept_within(connection, drafts, client_limit).await?;
    let mut verdicts: Vec<Vec<Verdict>> = drafts
        .iter()
        .map(|draft| model.decide(draft, client_limit))
        .collect();
    // One that is over the limit may be answered with the order of an equal request after it, at another rate.
    for (draft, verdicts) in drafts.iter().zip(&mut verdicts) {
        let equal = model.orders.iter().find(|order| order.request == draft.request);
        if let Some(order) = equal.filter(|_| verdicts.contains(&Verdict::OverClientLimit)) {
            verdicts.push(Verdict::Repeated(order.external_id));
        }
    }
    let orders = compare_book(connection, model).await?;
    for ((index, verdicts), (draft, answer)) in (0..).zip(&verdicts).zip(drafts.iter().zip(&answers)) {
        let wanted = verdicts.iter().map(|verdict| {
            let of = match verdict {
                Verdict::Created => Some(draft.external_id),
                Verdict::Repeated(first) | Verdict::Voided(first) => Some(*first),
                Verdict::NoCurrency | Verdict::NoClient | Verdict::OverClientLimit | Verdict::OverCap => None,
            };
            let order = orders.iter().find(|stored| Some(stored.order.external_id) == of);
            let nothing = Answer {
                index,
                verdict: verdict.name().to_owned(),
                ..Answer::default()
            };
            order.map_or(nothing, |order| order.answer(index, verdict.name()))
        });
        let wanted: Vec<Answer> = wanted.collect();
        anyhow::ensure!(
            wanted.contains(answer),
            "{draft:?}: {answer:?} instead of {wanted:?}"
        );
    }
    Ok(())
}

/// Compares orders, messages and totals with the model's. Returns the orders.
async fn compare_book(connection: &mut PgConnection, model: &Model) -> anyhow::Result<Vec<Stored>> {
    let orders = stored(connection).await?;

    let same_orders = orders.len() == model.orders.len()
        && orders
            .iter()
            .zip(&model.orders)
            .all(|(order, draft)| order.is(draft));
    anyhow::ensure!(
        same_orders,
        "not the same orders in the order of their drafts: {orders:?}"
    );
    let ascend = orders.iter().is_sorted_by(|before, after| {
        before.order.id < after.order.id && before.order.created_at <= after.order.created_at
    });
    anyhow::ensure!(ascend, "ids or times do not ascend: {orders:?}");

    let wanted: Vec<Message> = orders
        .iter()
        .zip(&model.orders)
        .map(|(stored, draft)| Message::created(&stored.order, draft.traceparent(), draft.tracestate()))
        .collect::<anyhow::Result<_>>()?;
    let (of_voids, messages): (Vec<Message>, _) = messages(connection)
        .await?
        .into_iter()
        .partition(Message::is_of_a_void);
    anyhow::ensure!(messages == wanted, "{messages:?} instead of {wanted:?}");

    // By time, as they were announced.
    let voids: Vec<(i64, String, OffsetDateTime, Uuid)> = sqlx::query_as(
        "SELECT buy_order_id, reason, voided_at, message_id FROM buy_order_void ORDER BY voided_at",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut wanted = Vec::new();
    let mut voided = HashSet::new();
    for (id, text, voided_at, message_id) in &voids {
        let order = orders.iter().find(|stored| stored.order.id == *id);
        let order = &order.context("a void without an order")?.order;
        anyhow::ensure!(*text == reason(order.external_id), "{text}");
        voided.insert(order.external_id);
        wanted.push(Message::voided(*message_id, order, text, *voided_at));
    }
    anyhow::ensure!(voided == model.voided, "{voided:?} instead of {:?}", model.voided);
    anyhow::ensure!(of_voids == wanted, "{of_voids:?} instead of {wanted:?}");

    let total: Decimal = sqlx::query_scalar("SELECT btc_amount FROM buy_order_running_total")
        .fetch_one(connection)
        .await?;
    let sum: Decimal = orders
        .iter()
        .filter(|stored| !voided.contains(&stored.order.external_id))
        .map(|stored| stored.order.btc_amount.decimal())
        .sum();
    anyhow::ensure!(
        total == model.total() && sum == total,
        "total {total}, orders {sum}, model {}",
        model.total()
    );
    Ok(orders)
}

async fn empty_the_book(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "BEGIN;
         SET LOCAL session_replication_role = replica;
         TRUNCATE buy_order, buy_order_void, outbox, client_running_total;
         UPDATE buy_order_running_total SET btc_amount = 0;
         COMMIT",
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_second_client(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO client (email) VALUES ('second@example.com')")
        .execute(connection)
        .await?;
    Ok(())
}

#[test]
fn batches_and_voids_are_decided_as_the_rules_say() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Dropping a connection needs a runtime.
    let _entered = runtime.enter();
    let cluster = runtime.block_on(databases())?;
    let mut connection = runtime.block_on(cluster.write_model().acquire())?;
    let connection = std::cell::RefCell::new(&mut *connection);
    runtime.block_on(add_second_client(&mut connection.borrow_mut()))?;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&vec(step(), 8), |steps| {
        let connection = &mut *connection.borrow_mut();
        let compared = runtime.block_on(async {
            empty_the_book(connection).await?;
            let mut model = Model::default();
            for step in &steps {
                match step {
                    Step::Accept { drafts, client_limit } => {
                        compare_within(connection, &mut model, drafts, *client_limit).await?;
                    }
                    Step::Void(place) => compare_voids(connection, &mut model, *place).await?,
                }
            }
            anyhow::Ok(())
        });
        compared.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => anyhow::bail!("{reason}\nby the steps {steps:#?}"),
        Err(abort) => anyhow::bail!("{abort}"),
    }
}

#[tokio::test]
async fn a_large_batch_is_decided_whole_and_at_the_cap_one_by_one() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    let mut model = Model::default();
    // 99.8 BTC, then 0.2 BTC and some that do not fit.
    for batch in [0..499, 400..900] {
        let drafts: Vec<Draft> = batch.map(|key| draft(key, 20_000_000)).collect();
        compare(&mut connection, &mut model, &drafts).await?;
    }
    assert_eq!((model.total(), model.orders.len()), (CAP, 500));
    Ok(())
}

/// A writer that lost its connection calls again: orders that the first call created are answered as created.
#[tokio::test]
async fn drafts_that_are_given_again_are_answered_with_their_orders() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    let drafts = [draft(1, 1), draft(2, 1)];
    accept(&mut connection, &drafts).await?;
    let orders = stored(&mut connection).await?;
    let again = accept(&mut connection, &drafts).await?;
    let wanted: Vec<Answer> = (0..)
        .zip(&orders)
        .map(|(index, order)| order.answer(index, "created"))
        .collect();
    assert_eq!(again, wanted);
    assert_eq!(stored(&mut connection).await?, orders);
    Ok(())
}

/// A failed statement leaves nothing of its batch.
#[tokio::test]
async fn a_draft_that_no_column_holds_takes_its_batch_with_it() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    let mut model = Model::default();
    compare(&mut connection, &mut model, &[draft(1, 1)]).await?;
    for bad in [draft(3, 0), draft(3, -1)] {
        let refused = accept(&mut connection, &[draft(2, 1), bad]).await;
        assert!(
            refused.is_err_and(|error| error.to_string().contains("buy_order_btc_amount_check")),
            "{bad:?}"
        );
    }
    // Nothing has changed.
    compare(&mut connection, &mut model, &[draft(1, 1)]).await
}

#[tokio::test]
async fn two_who_ask_at_the_same_time_get_one_order_for_each_request() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let (mut first, mut second) = (pool.acquire().await?, pool.acquire().await?);
    for round in 0..10_u128 {
        // Thirty keys in common and ten of its own each, in opposite orders.
        let keys = |own: u128| round * 100 + own..round * 100 + own + 40;
        let some: Vec<Draft> = keys(0).map(|key| draft(key, 1)).collect();
        let others: Vec<Draft> = keys(10).rev().map(|key| draft(key, 1)).collect();

        // Both wait for the lock before either may continue.
        let lock = lock_running_total(pool).await?;
        let release = async {
            wait_until("both wait for the lock", Duration::from_secs(60), async || {
                Ok(blocked_sessions(pool, "accept_orders").await?.len() == 2)
            })
            .await?;
            Ok(lock.commit().await?)
        };
        let (some_answers, other_answers, ()) =
            tokio::try_join!(accept(&mut first, &some), accept(&mut second, &others), release)?;

        let mut orders: HashMap<u128, Vec<(String, Option<i64>)>> = HashMap::new();
        for (draft, answer) in some
            .iter()
            .chain(&others)
            .zip(some_answers.into_iter().chain(other_answers))
        {
            let of_key = orders.entry(draft.request.key).or_default();
            of_key.push((answer.verdict, answer.id));
        }
        assert_eq!(orders.len(), 50);
        for (key, mut answers) in orders {
            answers.sort();
            let verdicts: Vec<&str> = answers.iter().map(|(verdict, _)| verdict.as_str()).collect();
            let common = (round * 100 + 10..round * 100 + 40).contains(&key);
            let wanted: &[&str] = if common {
                &["created", "repeated"]
            } else {
                &["created"]
            };
            assert_eq!(verdicts, wanted, "{key}");
            let ids: Vec<Option<i64>> = answers.iter().map(|(_, id)| *id).collect();
            assert!(
                ids.iter().all(|id| id.is_some() && *id == ids[0]),
                "{key}: {ids:?}"
            );
        }
    }
    let mut connection = pool.acquire().await?;
    let orders = stored(&mut connection).await?;
    assert_eq!(orders.len(), 500);
    assert_eq!(messages(&mut connection).await?.len(), 500);
    let total: Decimal = sqlx::query_scalar("SELECT btc_amount FROM buy_order_running_total")
        .fetch_one(&mut *connection)
        .await?;
    assert_eq!(total, Decimal::new(500, 8));
    Ok(())
}

#[tokio::test]
async fn repeats_alone_wait_for_no_lock_and_draw_no_id() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let mut connection = pool.acquire().await?;
    accept(&mut connection, &[draft(1, 1), draft(2, 1)]).await?;
    let lock = lock_running_total(pool).await?;

    sqlx::raw_sql("SET lock_timeout = '1s'")
        .execute(&mut *connection)
        .await?;
    let answers = accept(&mut connection, &[draft(2, 1), draft(1, 1), draft(2, 1)]).await?;
    assert!(
        answers.iter().all(|answer| answer.verdict == "repeated"),
        "{answers:?}"
    );
    let drawn: i64 = sqlx::query_scalar("SELECT last_value FROM buy_order_id_seq")
        .fetch_one(&mut *connection)
        .await?;
    assert_eq!(drawn, 2, "no id was drawn for a repeat");
    // With a new order among them they wait.
    let refused = accept(&mut connection, &[draft(1, 1), draft(3, 1)]).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("lock timeout")));
    lock.commit().await?;
    let answers = accept(&mut connection, &[draft(1, 1), draft(3, 1)]).await?;
    let verdicts: Vec<&str> = answers.iter().map(|answer| answer.verdict.as_str()).collect();
    assert_eq!(verdicts, ["repeated", "created"]);
    Ok(())
}

/// Releases before version 6 call it without a limit, and know nothing of voids.
#[tokio::test]
async fn the_release_before_goes_on_accepting_orders() -> anyhow::Result<()> {
    const CALL: &str = "
        SELECT verdict, id
          FROM accept_orders(ARRAY[gen_random_uuid()], ARRAY[1::bigint], ARRAY['USD'], ARRAY[1.0], ARRAY[$1], ARRAY[1.0], ARRAY[1.0],
                             ARRAY[NULL], ARRAY[NULL])";
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    let key = Uuid::new_v4();
    let mut verdicts = Vec::new();
    for _ in 0..3 {
        let (verdict, id): (String, i64) = sqlx::query_as(CALL).bind(key).fetch_one(&mut *connection).await?;
        verdicts.push((verdict, id));
        let external_id: Uuid = sqlx::query_scalar("SELECT external_id FROM buy_order")
            .fetch_one(&mut *connection)
            .await?;
        if verdicts.len() == 2 {
            void(&mut connection, external_id, "a mistake").await?;
        }
    }
    let wanted = ["created", "repeated", "repeated"].map(|verdict| (verdict.to_owned(), 1));
    assert_eq!(verdicts, wanted);
    Ok(())
}
