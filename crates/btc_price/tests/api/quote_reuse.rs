//! When Coinbase is asked, and when not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Behaviour, wait_until};
use reqwest::{Method, StatusCode};
use tokio::task::JoinSet;

use crate::service::{Answer, BtcPrice, LIMIT};

const AT_ONCE: usize = 50;

/// Longer than any test, so that Coinbase is asked once.
const NEVER_OLD: (&str, &str) = ("QUOTE_MAX_AGE_S", "3600");

async fn at_once(service: &Arc<BtcPrice>) -> anyhow::Result<Vec<Answer>> {
    let mut requests = JoinSet::new();
    for _ in 0..AT_ONCE {
        let service = Arc::clone(service);
        requests.spawn(async move { service.buy("USD").await });
    }
    requests.join_all().await.into_iter().collect()
}

#[tokio::test]
async fn fifty_concurrent_requests_ask_once_and_get_one_quote() -> anyhow::Result<()> {
    let service = Arc::new(BtcPrice::start(&[NEVER_OLD]).await?);
    service
        .prices()
        .answer_with(Behaviour::Delay(Duration::from_millis(500)));
    let answers = at_once(&service).await?;
    assert_eq!(answers.len(), AT_ONCE);
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(service.prices().requests(), 1);
    Ok(())
}

#[tokio::test]
async fn fifty_concurrent_requests_to_a_dead_provider_ask_once_and_all_fail() -> anyhow::Result<()> {
    let service = Arc::new(BtcPrice::start(&[("CB_TIMEOUT_S", "1")]).await?);
    service.prices().answer_with(Behaviour::Hang);
    for answer in at_once(&service).await? {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(service.prices().requests(), 1);
    Ok(())
}

#[tokio::test]
async fn a_quote_is_reused_while_it_is_young_and_each_currency_has_its_own() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[NEVER_OLD]).await?;
    let first = service.buy("USD").await?;
    service.prices().set_rate("USD", "1.00");
    assert_eq!(service.buy("USD").await?.body, first.body);
    assert_eq!(service.prices().requests(), 1);

    assert_eq!(service.buy("GBP").await?.body["currency"], "GBP");
    assert_eq!(service.prices().requests(), 2);
    Ok(())
}

#[tokio::test]
async fn a_quote_that_reached_its_maximal_age_is_asked_for_anew() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[("QUOTE_MAX_AGE_S", "0.3")]).await?;
    let first = service.buy("USD").await?;
    service.prices().set_rate("USD", "1.00");
    let mut later = None;
    wait_until("a new quote", LIMIT, async || {
        let quote = service.buy("USD").await?;
        let is_new = quote.body["rate"] == "1.00";
        later = Some(quote);
        Ok(is_new)
    })
    .await?;
    let later = later.map(|quote| quote.body["timestamp"].to_string());
    assert!(later > Some(first.body["timestamp"].to_string()));
    assert_eq!(service.prices().requests(), 2);
    Ok(())
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_the_request_that_others_wait_for() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[NEVER_OLD]).await?;
    service
        .prices()
        .answer_with(Behaviour::Delay(Duration::from_secs(1)));
    let impatient = service
        .request(Method::GET, "/buy?currency=USD")
        .timeout(Duration::from_millis(300));
    assert!(impatient.send().await.is_err_and(|error| error.is_timeout()));

    assert_eq!(service.buy("USD").await?.status, StatusCode::OK);
    assert_eq!(service.prices().requests(), 1);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_asks_for_patience_is_left_alone_that_long() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    service.prices().answer_with(Behaviour::RetryAfter(429, 40));
    assert_eq!(service.buy("USD").await?.retry_after, Some(40));

    service.prices().answer_with(Behaviour::Rates);
    let still = service.buy("USD").await?;
    assert_eq!(still.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        still
            .retry_after
            .is_some_and(|seconds| (1..=40).contains(&seconds)),
        "{still:?}"
    );
    assert_eq!(service.prices().requests(), 1);
    Ok(())
}

#[tokio::test]
async fn an_answer_says_for_how_long_its_quote_may_be_reused_and_that_time_runs_out() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[("QUOTE_MAX_AGE_S", "30")]).await?;
    let fresh_for_ms = async || -> anyhow::Result<u64> {
        let response = service.request(Method::GET, "/buy?currency=USD").send().await?;
        let header = response.headers().get("x-fresh-for-ms").context("no header")?;
        Ok(header.to_str()?.parse()?)
    };
    let first = fresh_for_ms().await?;
    assert!((1..=30_000).contains(&first), "{first} ms");
    wait_until("less time is left", LIMIT, async || {
        Ok(fresh_for_ms().await? < first)
    })
    .await
}
