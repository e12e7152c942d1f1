//! Compares `accept_orders`, the only way to write an order, with a plain model of its rules.

mod model;

use std::collections::HashMap;
use std::time::Duration;

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
use model::{CAP, Draft, Model, RATE, Verdict, batch, draft};

/// The row of `accept_orders` for one draft.
#[derive(Debug, Clone, Default, PartialEq, Eq, sqlx::FromRow)]
struct Answer {
    index: i64,
    verdict: String,
    id: Option<i64>,
    external_id: Option<Uuid>,
    created_at: Option<OffsetDateTime>,
    currency_amount: Option<Decimal>,
    btc_rate: Option<Decimal>,
    btc_amount: Option<Decimal>,
}

/// In the order of the drafts: one answer each, or the test fails.
async fn accept(connection: &mut PgConnection, drafts: &[Draft]) -> anyhow::Result<Vec<Answer>> {
    fn column<T>(drafts: &[Draft], part: impl FnMut(&Draft) -> T) -> Vec<T> {
        drafts.iter().map(part).collect()
    }
    let mut answers: Vec<Answer> =
        sqlx::query_as("SELECT * FROM accept_orders($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(column(drafts, |draft| draft.external_id))
            .bind(column(drafts, |draft| draft.request.client))
            .bind(column(drafts, |draft| draft.request.currency))
            .bind(column(drafts, Draft::amount))
            .bind(column(drafts, |draft| Uuid::from_u128(draft.request.key)))
            .bind(column(drafts, |_| Decimal::new(RATE, 8)))
            .bind(column(drafts, Draft::btc_amount))
            .bind(column(drafts, Draft::traceparent))
            .bind(column(drafts, Draft::tracestate))
            .fetch_all(connection)
            .await?;
    answers.sort_by_key(|answer| answer.index);
    let indices: Vec<i64> = answers.iter().map(|answer| answer.index).collect();
    let wanted: Vec<i64> = (0..).take(drafts.len()).collect();
    anyhow::ensure!(indices == wanted, "not one answer a draft: {answers:?}");
    Ok(answers)
}

/// A stored order.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Stored {
    #[sqlx(flatten)]
    order: BuyOrderCreated,
    idempotence_key: Uuid,
}

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

/// Gives a batch to `accept_orders` and to the model, and compares all results.
async fn compare(connection: &mut PgConnection, model: &mut Model, drafts: &[Draft]) -> anyhow::Result<()> {
    let answers = accept(connection, drafts).await?;
    let verdicts: Vec<Verdict> = drafts.iter().map(|draft| model.decide(draft)).collect();
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

    for ((index, verdict), (draft, answer)) in (0..).zip(&verdicts).zip(drafts.iter().zip(&answers)) {
        let of = match verdict {
            Verdict::Created => Some(draft.external_id),
            Verdict::Repeated(first) => Some(*first),
            Verdict::NoCurrency | Verdict::NoClient | Verdict::OverCap => None,
        };
        let order = orders.iter().find(|stored| Some(stored.order.external_id) == of);
        let nothing = Answer {
            index,
            verdict: verdict.name().to_owned(),
            ..Answer::default()
        };
        let wanted = order.map_or(nothing, |order| order.answer(index, verdict.name()));
        anyhow::ensure!(*answer == wanted, "{draft:?}: {answer:?} instead of {wanted:?}");
    }

    let wanted: Vec<Message> = orders
        .iter()
        .zip(&model.orders)
        .map(|(stored, draft)| Message::created(&stored.order, draft.traceparent(), draft.tracestate()))
        .collect::<anyhow::Result<_>>()?;
    let messages = messages(connection).await?;
    anyhow::ensure!(messages == wanted, "{messages:?} instead of {wanted:?}");

    let total: Decimal = sqlx::query_scalar("SELECT btc_amount FROM buy_order_running_total")
        .fetch_one(connection)
        .await?;
    let sum: Decimal = orders
        .iter()
        .map(|stored| stored.order.btc_amount.decimal())
        .sum();
    anyhow::ensure!(
        total == model.total && sum == total,
        "total {total}, orders {sum}, model {}",
        model.total
    );
    Ok(())
}

async fn empty_the_book(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "BEGIN;
         ALTER TABLE buy_order DISABLE TRIGGER buy_order_is_append_only;
         TRUNCATE buy_order, outbox;
         ALTER TABLE buy_order ENABLE TRIGGER buy_order_is_append_only;
         UPDATE buy_order_running_total SET btc_amount = 0;
         COMMIT",
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[test]
fn batches_are_decided_as_the_rules_say() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Dropping a connection needs a runtime.
    let _entered = runtime.enter();
    let cluster = runtime.block_on(databases())?;
    let mut connection = runtime.block_on(cluster.write_model().acquire())?;
    let connection = std::cell::RefCell::new(&mut *connection);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&vec(batch(), 5), |batches| {
        let connection = &mut *connection.borrow_mut();
        let compared = runtime.block_on(async {
            empty_the_book(connection).await?;
            let mut model = Model::default();
            for drafts in &batches {
                compare(connection, &mut model, drafts).await?;
            }
            anyhow::Ok(())
        });
        compared.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, batches)) => anyhow::bail!("{reason}\nby the batches {batches:#?}"),
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
    assert_eq!((model.total, model.orders.len()), (CAP, 500));
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
