//! Passes requests of the page on to the services, as any client sends them.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, LINK, RETRY_AFTER};
use axum::response::Response;
use common::endpoints::Peer;
use common::http::client::{self, Recipient, body_up_to};
use common::http::{ORDER_POSITION, Problem};
use reqwest::RequestBuilder;
use tokio::time::timeout;

/// Longer than a service needs for any answer, and shorter than this one has.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(13);

const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

const POSITION: HeaderName = HeaderName::from_static(ORDER_POSITION);
/// Of a request. The trace context and the request id are passed on with every request to a peer.
const PASSED_ON: [HeaderName; 3] = [CONTENT_TYPE, AUTHORIZATION, POSITION];
/// Of an answer. The request id is that of our own answer.
const PASSED_BACK: [HeaderName; 5] = [
    CONTENT_TYPE,
    POSITION,
    RETRY_AFTER,
    LINK,
    HeaderName::from_static("idempotent-replayed"),
];

/// The services that the page uses; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PassOn {
    client: reqwest::Client,
    create_buy_order: Peer,
    fetch_buy_orders: Peer,
}

impl PassOn {
    pub(crate) fn new(
        create_buy_order: Peer,
        fetch_buy_orders: Peer,
        extra_ca: Option<&Path>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client: client::client(ANSWER_TIMEOUT, extra_ca)?,
            create_buy_order,
            fetch_buy_orders,
        })
    }

    /// `PUT /buy_order`.
    ///
    /// # Errors
    /// The body is too large or takes too long, or `create_buy_order` does not answer.
    pub(crate) async fn put_order(&self, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
        let body = read(body).await?;
        let request = self
            .client
            .put(self.create_buy_order.url("/buy_order"))
            .body(body);
        let answer = pass_on("create_buy_order", request, headers).await?;
        tracing::info!(
            event = "console_order_passed_on",
            status = answer.status().as_u16()
        );
        Ok(answer)
    }

    /// `GET /buy_orders`.
    ///
    /// # Errors
    /// `fetch_buy_orders` does not answer.
    pub(crate) async fn get_orders(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Response, Problem> {
        let mut url = self.fetch_buy_orders.url("/buy_orders");
        if let Some(query) = query {
            url = format!("{url}?{query}");
        }
        pass_on("fetch_buy_orders", self.client.get(url), headers).await
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Problem::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {MAX_BODY_BYTES} bytes, or broke off"),
        )),
        Err(_) => Err(Problem::client(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long to arrive",
        )),
    }
}

async fn pass_on(service: &str, request: RequestBuilder, headers: &HeaderMap) -> Result<Response, Problem> {
    let away =
        |error: anyhow::Error| Problem::unavailable(format!("{service} does not answer, try again"), error);
    let request = request.headers(picked(headers, &PASSED_ON));
    let answer = client::send(request, Recipient::Peer)
        .await
        .map_err(|error| away(error.into()))?;
    let (status, kept) = (answer.status(), picked(answer.headers(), &PASSED_BACK));
    let body = body_up_to(MAX_ANSWER_BYTES, answer)
        .await
        .map_err(|error| away(error.into()))?
        .ok_or_else(|| away(anyhow!("its answer is longer than {MAX_ANSWER_BYTES} bytes")))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = kept;
    Ok(response)
}

fn picked(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut picked = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            picked.append(name, value.clone());
        }
    }
    picked
}
