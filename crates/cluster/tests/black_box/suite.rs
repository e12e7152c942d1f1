//! The promises of the system to its clients, as functions over two addresses and an HTTP client: the same tests run
//! natively (`tests/system.rs`) and under compose (`tests/compose/main.rs`).
//!
//! There may be other orders; these tests place theirs only in `USD` and `EUR`.

pub(crate) mod docs;
pub(crate) mod orders;
pub(crate) mod pages;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use reqwest::header::HeaderMap;
use serde_json::Value;
use uuid::Uuid;

/// How long a projection may take on a busy machine.
pub(crate) const PROJECTION_LIMIT: Duration = Duration::from_secs(60);

/// Calls the given macro with every test of the suite.
macro_rules! every_sentence {
    ($call:ident) => {
        $call! {
            orders::an_accepted_order_is_answered_with_exact_decimals,
            orders::an_accepted_order_appears_on_the_first_page,
            orders::an_order_is_on_the_page_that_has_its_position,
            orders::a_repeat_is_answered_with_the_first_order_and_marked,
            orders::an_amount_in_another_spelling_is_a_repeat,
            orders::every_fault_of_an_order_is_named_in_one_answer,
            orders::an_order_past_the_cap_is_refused_whole,
            pages::walking_the_pages_while_orders_arrive_shows_each_older_order_exactly_once,
            pages::the_link_header_leads_through_all_pages,
            pages::faulty_page_requests_are_refused,
            docs::every_entry_answers_the_health_check,
            docs::an_unknown_path_is_answered_404_and_a_wrong_method_405,
            docs::the_description_names_the_operation_and_its_answers,
            docs::the_descriptions_name_the_position_of_an_order,
            docs::the_documentation_page_needs_nothing_from_elsewhere,
            docs::the_documentation_page_comes_in_an_encoding_that_its_client_takes,
            orders::no_cache_keeps_an_order_or_a_page,
            docs::the_documentation_page_is_confined_to_its_own_site,
            docs::errors_below_the_documentation_page_are_json_too,
        }
    };
}
pub(crate) use every_sentence;

/// The system as its clients see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct System {
    /// Base address of `create_buy_order`.
    pub(crate) create_buy_order: String,
    /// Base address of `fetch_buy_orders`.
    pub(crate) fetch_buy_orders: String,
    pub(crate) http: reqwest::Client,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("no JSON in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The position of an accepted order.
    pub(crate) fn position(&self) -> anyhow::Result<String> {
        let position = self.header("order-position");
        Ok(position
            .with_context(|| format!("no Order-Position: {self:?}"))?
            .to_owned())
    }

    /// The body of the answer, which must have this status.
    pub(crate) fn expect(self, status: u16) -> anyhow::Result<Value> {
        ensure!(self.status == status, "expected {status}: {self:?}");
        self.json()
    }
}

impl System {
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    pub(crate) async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(self.http.get(url)).await
    }

    /// `PUT /buy_order` with this body.
    pub(crate) async fn put(&self, body: &Value) -> anyhow::Result<Answer> {
        let url = format!("{}/buy_order", self.create_buy_order);
        self.send(self.http.put(url).json(body)).await
    }

    /// `PUT /buy_order`.
    pub(crate) async fn order(&self, currency: &str, amount: &str, key: Uuid) -> anyhow::Result<Answer> {
        self.put(&cluster::order_with_key(currency, amount, key)).await
    }

    /// Places a new order, which must be accepted, and returns it.
    pub(crate) async fn place(&self, currency: &str, amount: &str) -> anyhow::Result<Value> {
        let answer = self.order(currency, amount, Uuid::new_v4()).await?;
        Ok(answer.expect(200)?["buy_order"].take())
    }

    /// All orders, newest first.
    pub(crate) async fn book(&self) -> anyhow::Result<Vec<Value>> {
        walk(self, 1000).await
    }

    /// Waits until the pages show these orders.
    pub(crate) async fn projected(&self, orders: &[Value]) -> anyhow::Result<()> {
        cluster::wait_until("the orders are on the pages", PROJECTION_LIMIT, async || {
            let shown = ids(&self.book().await?);
            Ok(ids(orders).is_subset(&shown))
        })
        .await
    }
}

/// A source of pages: the system, or a client that retries.
pub(crate) trait Pages {
    /// `GET /buy_orders` with this query.
    fn page(&self, query: &str) -> impl Future<Output = anyhow::Result<Answer>> + Send;
}

impl Pages for System {
    async fn page(&self, query: &str) -> anyhow::Result<Answer> {
        self.get(&format!("{}/buy_orders?{query}", self.fetch_buy_orders))
            .await
    }
}

/// Walks the pages from the newest order to the oldest, by `last_reference`.
pub(crate) async fn walk(pages: &impl Pages, page_size: usize) -> anyhow::Result<Vec<Value>> {
    let mut rows = Vec::new();
    let mut query = format!("page_size={page_size}");
    loop {
        let mut body = pages.page(&query).await?.expect(200)?;
        let Value::Array(part) = body["rows"].take() else {
            anyhow::bail!("a page without rows: {body}");
        };
        ensure!(
            part.len() <= page_size,
            "{} rows, asked for {page_size}",
            part.len()
        );
        ensure!(
            body["last_reference"] == part.last().map_or(Value::Null, |row| row["id"].clone()),
            "last_reference is not the last row's id: {body}"
        );
        rows.extend(part);
        match body["last_reference"].as_str() {
            Some(last_reference) => query = format!("last_reference={last_reference}&page_size={page_size}"),
            None => return Ok(rows),
        }
    }
}

/// The ids of orders.
pub(crate) fn ids(orders: &[Value]) -> BTreeSet<String> {
    orders
        .iter()
        .map(|order| order["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Fails unless every id is there once and the newest order comes first.
pub(crate) fn ensure_a_proper_walk(rows: &[Value]) -> anyhow::Result<()> {
    ensure!(ids(rows).len() == rows.len(), "a walk showed an order twice");
    // Times are written with a fixed width, so that their texts sort as they do.
    let newest_first =
        rows.is_sorted_by(|newer, older| newer["created_at"].as_str() >= older["created_at"].as_str());
    ensure!(newest_first, "a walk is not newest first");
    Ok(())
}

/// Those of `rows` that `orders` names too, in the order of `rows`.
pub(crate) fn common(rows: &[Value], orders: &[Value]) -> Vec<Value> {
    let wanted = ids(orders);
    let is_wanted = |row: &&Value| row["id"].as_str().is_some_and(|id| wanted.contains(id));
    rows.iter().filter(is_wanted).cloned().collect()
}
