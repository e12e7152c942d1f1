//! `PUT /buy_order` as its clients see it: real binaries, real servers.
#![allow(missing_docs, reason = "the names are sentences")]

mod addresses;
mod all_or_nothing;
mod arguments;
mod batch;
mod broker;
mod cap;
mod connections;
mod contract;
mod currencies;
mod edge;
mod encryption;
mod faulty_json;
mod hanging;
mod idempotence;
mod leases;
mod limits;
mod max_rate;
mod outbox;
mod plans;
mod policies;
mod pool;
mod prices;
mod republish;
mod sessions;
mod settings;
mod shutdown;
mod turns;
mod unfinished;
mod verdicts;
mod verify;
mod voids;
mod wire_format;

use anyhow::Context as _;
use cluster::{Cluster, Options, Service};
use rust_decimal::Decimal;
use serde_json::Value;

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) position: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// A member of the order in the answer.
    pub(crate) fn order(&self, member: &str) -> &str {
        self.body["buy_order"][member].as_str().unwrap_or_default()
    }
}

pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) async fn put_json(http: &reqwest::Client, url: &str, body: &Value) -> anyhow::Result<Answer> {
    answer(http.put(format!("{url}/buy_order")).json(body).send().await?).await
}

pub(crate) async fn answer(response: reqwest::Response) -> anyhow::Result<Answer> {
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    anyhow::ensure!(
        header("content-type").as_deref() == Some("application/json"),
        "not JSON: {response:?}"
    );
    Ok(Answer {
        status: response.status().as_u16(),
        replayed: header("idempotent-replayed").as_deref() == Some("true"),
        position: header("order-position"),
        retry_after: header("retry-after"),
        body: response.json().await.context("the body is not JSON")?,
    })
}

/// An order of this amount, with this key, from the cluster's `create_buy_order`.
pub(crate) async fn buy(
    cluster: &Cluster,
    currency: &str,
    amount: &str,
    key: &str,
) -> anyhow::Result<Answer> {
    let order = cluster::order_with_key(currency, amount, key);
    answer(cluster.put_order(&order).send().await?).await
}

/// The metrics of the process at this URL, line by line.
pub(crate) async fn metrics(http: &reqwest::Client, url: &str) -> anyhow::Result<Vec<String>> {
    let shown = http.get(format!("{url}/metrics")).send().await?.text().await?;
    Ok(shown.lines().map(str::to_owned).collect())
}

pub(crate) async fn count(cluster: &Cluster, table: &'static str) -> anyhow::Result<i64> {
    let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    Ok(sqlx::query_scalar(statement)
        .fetch_one(cluster.write_model())
        .await?)
}

/// All answers have the same order: one as new, the others as repeats.
pub(crate) fn assert_one_order(answers: &[Answer]) {
    let same = |answer: &Answer| answer.status == 200 && answer.body == answers[0].body;
    assert!(answers.iter().all(same), "{answers:?}");
    let new = answers.iter().filter(|answer| !answer.replayed);
    assert_eq!(new.count(), 1, "{answers:?}");
}

/// The number of orders, and the total, which must be the sum of those that are not voided. A refused order changes neither.
pub(crate) async fn book(cluster: &Cluster) -> anyhow::Result<(i64, Decimal)> {
    let (orders, sum, total): (i64, Decimal, Decimal) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(btc_amount) FILTER (WHERE buy_order_id IS NULL), 0),
                (SELECT btc_amount FROM buy_order_running_total)
           FROM buy_order LEFT JOIN buy_order_void ON buy_order_id = id",
    )
    .fetch_one(cluster.write_model())
    .await?;
    anyhow::ensure!(sum == total, "the sum is {sum}, and the total {total}");
    Ok((orders, total))
}

/// A cluster of the services that accept orders, without those that project and show them.
pub(crate) async fn start_cluster() -> anyhow::Result<Cluster> {
    start_cluster_with_quotes_for("2").await
}

/// A cluster whose quotes are reused for so many seconds.
pub(crate) async fn start_cluster_with_quotes_for(seconds: &str) -> anyhow::Result<Cluster> {
    Cluster::start(
        Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]).with_env(
            Service::BtcPrice,
            "QUOTE_MAX_AGE_S",
            seconds,
        ),
    )
    .await
}

/// The URLs of two processes of `create_buy_order`.
pub(crate) async fn two_processes(cluster: &Cluster) -> anyhow::Result<[String; 2]> {
    Ok([
        cluster.url(Service::CreateBuyOrder),
        cluster.start_extra(Service::CreateBuyOrder).await?,
    ])
}
