//! Helpers of several tests.

use std::ops::RangeInclusive;

use cluster::{Cluster, Options, Service};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;
use sqlx::PgPool;

/// The service with an empty read model.
pub(crate) async fn cluster() -> anyhow::Result<Cluster> {
    Cluster::start(Options::only(&[Service::FetchBuyOrders])).await
}

/// A response with its body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The ids of the rows.
    pub(crate) fn ids(&self) -> Vec<String> {
        let rows = self.body.get("rows").and_then(Value::as_array);
        rows.into_iter()
            .flatten()
            .filter_map(|row| Some(row.get("id")?.as_str()?.to_owned()))
            .collect()
    }
}

/// `GET` of a path with its query; the response must be JSON.
pub(crate) async fn get(cluster: &Cluster, path: &str) -> anyhow::Result<Answer> {
    get_with(cluster, path, HeaderMap::new()).await
}

/// As [`get`], with these headers.
pub(crate) async fn get_with(cluster: &Cluster, path: &str, headers: HeaderMap) -> anyhow::Result<Answer> {
    let response = cluster
        .http()
        .get(cluster.url(Service::FetchBuyOrders) + path)
        .headers(headers)
        .send()
        .await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let answer = Answer {
        status,
        headers,
        body: response.json().await?,
    };
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{answer:?}"
    );
    Ok(answer)
}

/// The page of `page_size` orders that follows the order with this id.
pub(crate) async fn page_after(cluster: &Cluster, id: i64, page_size: u32) -> anyhow::Result<Answer> {
    let reference = external_id(id);
    get(
        cluster,
        &format!("/buy_orders?page_size={page_size}&last_reference={reference}"),
    )
    .await
}

/// The external id of the order with this id, as [`insert`] makes it.
pub(crate) fn external_id(id: i64) -> String {
    format!("00000000-0000-4000-8000-{id:012x}")
}

/// Inserts orders with these ids.
pub(crate) async fn insert(
    read_model: &PgPool,
    client_id: i64,
    ids: RangeInclusive<i64>,
) -> anyhow::Result<()> {
    const INSERT: &str = "
        INSERT INTO buy_order_read_model (id, external_id, client_id, created_at, currency_id, currency_iso3,
                                          currency_amount, btc_rate, btc_amount)
        SELECT id, ('00000000-0000-4000-8000-' || lpad(to_hex(id), 12, '0'))::uuid, $1,
               timestamptz '2026-11-23 15:37:32.5Z' + id * interval '1 second', 1, 'USD', 123.4, 48478.88, 0.00254647
        FROM generate_series($2::bigint, $3::bigint) id";
    sqlx::query(INSERT)
        .bind(client_id)
        .bind(ids.start())
        .bind(ids.end())
        .execute(read_model)
        .await?;
    Ok(())
}
