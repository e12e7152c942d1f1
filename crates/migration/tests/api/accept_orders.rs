//! `accept_orders`, the only way an order comes into the book, against a plain model of its rules.

use std::collections::HashMap;
use std::time::Duration;

use cluster::{Cluster, Options, wait_until};
use common::buy_order_event::BuyOrderCreated;
use common::money::{BtcAmount, BtcRate, FiatAmount};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use rust_decimal::Decimal;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, FromRow, PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

const CAP: Decimal = Decimal::ONE_HUNDRED;

async fn databases() -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await
}

/// What makes requests equal. The amount is in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request {
    client: i64,
    currency: &'static str,
    amount: i64,
    key: u128,
}

#[derive(Debug, Clone, Copy)]
struct Draft {
    request: Request,
    /// 1 and 1.00 are one amount.
    trailing_zeros: bool,
    satoshis: i64,
    traced: bool,
    external_id: Uuid,
}

impl Draft {
    fn amount(&self) -> Decimal {
        let amount = Decimal::new(self.request.amount, 2);
        if self.trailing_zeros {
            amount
        } else {
            amount.normalize()
        }
    }

    fn btc_amount(&self) -> Decimal {
        Decimal::new(self.satoshis, 8)
    }

    /// Told from that of other drafts by the external id.
    fn traceparent(&self) -> Option<String> {
        self.traced
            .then(|| format!("00-{}-00f067aa0ba902b7-01", self.external_id.simple()))
    }

    fn tracestate(&self) -> Option<String> {
        self.traced.then(|| format!("vendor={}", self.external_id))
    }
}

const RATE: i64 = 4_847_888_000_000;

/// What became of a draft; the order is named by its external id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Created,
    Repeated(Uuid),
    NoCurrency,
    NoClient,
    OverCap,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Repeated(_) => "repeated",
            Self::NoCurrency => "no_currency",
            Self::NoClient => "no_client",
            Self::OverCap => "over_cap",
        }
    }
}

/// The rules, draft by draft.
#[derive(Debug, Default)]
struct Model {
    total: Decimal,
    orders: Vec<Draft>,
    known: HashMap<Request, Uuid>,
}

impl Model {
    fn decide(&mut self, draft: &Draft) -> Verdict {
        if let Some(first) = self.known.get(&draft.request) {
            return Verdict::Repeated(*first);
        }
        if !["USD", "GBP", "EUR"].contains(&draft.request.currency) {
            return Verdict::NoCurrency;
        }
        if draft.request.client != 1 {
            return Verdict::NoClient;
        }
        match self.total.checked_add(draft.btc_amount()) {
            Some(sum) if sum <= CAP => {
                self.total = sum;
                self.known.insert(draft.request, draft.external_id);
                self.orders.push(*draft);
                Verdict::Created
            }
            _ => Verdict::OverCap,
        }
    }
}

/// What `accept_orders` says of one draft.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl FromRow<'_, PgRow> for Answer {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            index: row.try_get("index")?,
            verdict: row.try_get("verdict")?,
            id: row.try_get("id")?,
            external_id: row.try_get("external_id")?,
            created_at: row.try_get("created_at")?,
            currency_amount: row.try_get("currency_amount")?,
            btc_rate: row.try_get("btc_rate")?,
            btc_amount: row.try_get("btc_amount")?,
        })
    }
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
    let places: Vec<i64> = answers.iter().map(|answer| answer.index).collect();
    let wanted: Vec<i64> = (0..).take(drafts.len()).collect();
    anyhow::ensure!(places == wanted, "not one answer a draft: {answers:?}");
    Ok(answers)
}

/// An order as it is stored, with what its message has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    id: i64,
    client_id: i64,
    external_id: Uuid,
    created_at: OffsetDateTime,
    currency_id: i64,
    iso3: String,
    currency_amount: Decimal,
    idempotence_key: Uuid,
    btc_rate: Decimal,
    btc_amount: Decimal,
}

impl FromRow<'_, PgRow> for Stored {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            client_id: row.try_get("client_id")?,
            external_id: row.try_get("external_id")?,
            created_at: row.try_get("created_at")?,
            currency_id: row.try_get("currency_id")?,
            iso3: row.try_get("iso3")?,
            currency_amount: row.try_get("currency_amount")?,
            idempotence_key: row.try_get("idempotence_key")?,
            btc_rate: row.try_get("btc_rate")?,
            btc_amount: row.try_get("btc_amount")?,
        })
    }
}

impl Stored {
    fn payload(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&BuyOrderCreated {
            id: self.id,
            client_id: self.client_id,
            external_id: self.external_id,
            created_at: self.created_at,
            currency_id: self.currency_id,
            currency_iso3: self.iso3.clone(),
            currency_amount: FiatAmount::try_from(self.currency_amount)?,
            btc_rate: BtcRate::try_from(self.btc_rate)?,
            btc_amount: BtcAmount::try_from(self.btc_amount)?,
        })?)
    }

    fn answer(&self, index: i64, verdict: &str) -> Answer {
        Answer {
            index,
            verdict: verdict.to_owned(),
            id: Some(self.id),
            external_id: Some(self.external_id),
            created_at: Some(self.created_at),
            currency_amount: Some(self.currency_amount),
            btc_rate: Some(self.btc_rate),
            btc_amount: Some(self.btc_amount),
        }
    }

    fn is(&self, draft: &Draft) -> bool {
        self.external_id == draft.external_id
            && self.client_id == draft.request.client
            && self.iso3 == draft.request.currency
            && self.currency_amount == draft.amount()
            && self.idempotence_key == Uuid::from_u128(draft.request.key)
            && self.btc_rate == Decimal::new(RATE, 8)
            && self.btc_amount == draft.btc_amount()
    }
}

async fn stored(connection: &mut PgConnection) -> anyhow::Result<Vec<Stored>> {
    const ORDERS: &str = "SELECT buy_order.*, currency.iso3 FROM buy_order JOIN currency ON currency.id = currency_id ORDER BY buy_order.id";
    Ok(sqlx::query_as(ORDERS).fetch_all(connection).await?)
}

type Message = (String, String, Uuid, String, Option<String>, Option<String>);

async fn messages(connection: &mut PgConnection) -> anyhow::Result<Vec<Message>> {
    const MESSAGES: &str =
        "SELECT type, routing_key, message_id, payload, traceparent, tracestate FROM outbox ORDER BY id";
    Ok(sqlx::query_as(MESSAGES).fetch_all(connection).await?)
}

/// Gives a batch to the book and to the model, and compares all that came of it.
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
    let ascend = orders
        .iter()
        .is_sorted_by(|before, after| before.id < after.id && before.created_at <= after.created_at);
    anyhow::ensure!(ascend, "ids or times do not ascend: {orders:?}");

    for ((index, verdict), (draft, answer)) in (0..).zip(&verdicts).zip(drafts.iter().zip(&answers)) {
        let of = match verdict {
            Verdict::Created => Some(draft.external_id),
            Verdict::Repeated(first) => Some(*first),
            Verdict::NoCurrency | Verdict::NoClient | Verdict::OverCap => None,
        };
        let order = orders.iter().find(|order| Some(order.external_id) == of);
        let nothing = Answer {
            index,
            verdict: verdict.name().to_owned(),
            id: None,
            external_id: None,
            created_at: None,
            currency_amount: None,
            btc_rate: None,
            btc_amount: None,
        };
        let wanted = order.map_or(nothing, |order| order.answer(index, verdict.name()));
        anyhow::ensure!(*answer == wanted, "{draft:?}: {answer:?} instead of {wanted:?}");
    }

    let wanted: Vec<Message> = orders
        .iter()
        .zip(&model.orders)
        .map(|(order, draft)| {
            Ok((
                "buy_order_created".to_owned(),
                "buy_order".to_owned(),
                order.external_id,
                order.payload()?,
                draft.traceparent(),
                draft.tracestate(),
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    let messages = messages(connection).await?;
    anyhow::ensure!(messages == wanted, "{messages:?} instead of {wanted:?}");

    let total: Decimal = sqlx::query_scalar("SELECT btc_amount FROM buy_order_running_total")
        .fetch_one(connection)
        .await?;
    let sum: Decimal = orders.iter().map(|order| order.btc_amount).sum();
    anyhow::ensure!(
        total == model.total && sum == total,
        "total {total}, orders {sum}, model {}",
        model.total
    );
    Ok(())
}

/// An empty book, each time.
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

/// Small sets, so that requests repeat within a batch and over batches.
fn request() -> impl Strategy<Value = Request> {
    let client = prop_oneof![12 => Just(1), 1 => Just(2), 1 => Just(-1)];
    let currency = prop_oneof![4 => Just("USD"), 2 => Just("EUR"), 2 => Just("GBP"), 1 => Just("XXX")];
    let amount = prop_oneof![Just(100), Just(1_050), Just(99_999_999_999)];
    (client, currency, amount, 1..6_u128).prop_map(|(client, currency, amount, key)| Request {
        client,
        currency,
        amount,
        key,
    })
}

fn satoshis(most: i64) -> impl Strategy<Value = i64> {
    // All of the book, and a little less, are what a careless comparison gets wrong.
    let whole = 10_000_000_000;
    prop_oneof![20 => 1..=most, 1 => Just(whole), 1 => Just(whole - 1), 1 => Just(1)]
}

fn batch() -> impl Strategy<Value = Vec<Draft>> {
    // Batches that fit as a whole, that fill the book bit by bit, and that hardly ever fit.
    prop_oneof![Just(1_000), Just(300_000_000), Just(10_000_000_000)].prop_flat_map(|most| {
        let draft = (request(), any::<bool>(), satoshis(most), any::<bool>()).prop_map(
            |(request, trailing_zeros, satoshis, traced)| Draft {
                request,
                trailing_zeros,
                satoshis,
                traced,
                external_id: Uuid::new_v4(),
            },
        );
        vec(draft, 0..=40)
    })
}

#[test]
fn batches_are_decided_as_the_rules_say() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // For what ends with a drop: connections.
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

fn draft(key: u128, satoshis: i64) -> Draft {
    Draft {
        request: Request {
            client: 1,
            currency: "USD",
            amount: 12_345,
            key,
        },
        trailing_zeros: true,
        satoshis,
        traced: false,
        external_id: Uuid::new_v4(),
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

/// As a writer does whose connection broke while it waited for the answer: what the first call created is answered as created.
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

/// A statement that fails leaves nothing of its batch.
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
    // The book is as the model knows it.
    compare(&mut connection, &mut model, &[draft(1, 1)]).await
}

async fn waiting_for_the_lock(pool: &PgPool) -> anyhow::Result<i64> {
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%accept_orders%' AND pid <> pg_backend_pid()";
    Ok(sqlx::query_scalar(WAITING).fetch_one(pool).await?)
}

#[tokio::test]
async fn two_who_ask_at_the_same_time_get_one_order_for_each_request() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let (mut first, mut second) = (pool.acquire().await?, pool.acquire().await?);
    for round in 0..10_u128 {
        // The same thirty, and ten that the other does not ask for, in orders that cross.
        let keys = |own: u128| round * 100 + own..round * 100 + own + 40;
        let some: Vec<Draft> = keys(0).map(|key| draft(key, 1)).collect();
        let others: Vec<Draft> = keys(10).rev().map(|key| draft(key, 1)).collect();

        // Both wait until neither is ahead.
        let mut holder = pool.acquire().await?;
        let mut held = holder.begin().await?;
        sqlx::raw_sql("SELECT FROM buy_order_running_total FOR UPDATE")
            .execute(&mut *held)
            .await?;
        let release = async {
            wait_until("both wait for the lock", Duration::from_secs(60), async || {
                Ok(waiting_for_the_lock(pool).await? == 2)
            })
            .await?;
            Ok(held.commit().await?)
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
