//! Answers of Coinbase that are not a price give no quote.

use std::time::Duration;

use anyhow::Context;
use cluster::{Behaviour, wait_until};
use reqwest::StatusCode;
use serde_json::json;

use crate::service::{BtcPrice, LIMIT};

/// No quote is reused, and the timeout of the provider is short.
const IMPATIENT: [(&str, &str); 2] = [("QUOTE_MAX_AGE_S", "0.001"), ("CB_TIMEOUT_S", "0.5")];

/// Checks that the answer is refused, that Coinbase was asked once, and that a valid price is quoted again afterwards.
async fn is_no_price(service: &BtcPrice, behaviour: Behaviour) -> anyhow::Result<()> {
    service.prices().answer_with(Behaviour::Rates);
    service.buy_until("USD", StatusCode::OK).await?;

    let failures = service.events("coinbase_client_exception_occurred").len();
    let asked = service.prices().requests();
    service.prices().answer_with(behaviour.clone());
    let refusal = service.buy_until("USD", StatusCode::SERVICE_UNAVAILABLE).await?;

    let detail = "no recent price is available, try again shortly";
    assert_eq!(refusal.body, json!({ "detail": detail }), "{behaviour:?}");
    assert!(
        refusal.retry_after.is_some_and(|seconds| seconds >= 1),
        "{behaviour:?}"
    );
    assert_eq!(service.prices().requests() - asked, 1, "{behaviour:?}");

    wait_until("the event of the failure", LIMIT, async || {
        let events = service.events("coinbase_client_exception_occurred");
        let Some(event) = events.get(failures) else {
            return Ok(false);
        };
        let complete =
            event["currency"] == "USD" && event["price_type"] == "buy" && event["info"].is_string();
        complete.then_some(true).with_context(|| event.to_string())
    })
    .await?;

    service.prices().answer_with(Behaviour::Rates);
    service.buy_until("USD", StatusCode::OK).await.map(drop)
}

async fn are_no_prices(behaviours: impl IntoIterator<Item = Behaviour>) -> anyhow::Result<()> {
    let service = BtcPrice::start(&IMPATIENT).await?;
    for behaviour in behaviours {
        is_no_price(&service, behaviour.clone())
            .await
            .with_context(|| format!("{behaviour:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn an_amount_that_is_not_a_plain_positive_decimal_of_20_digits_is_no_price() -> anyhow::Result<()> {
    let amounts = [
        "0",
        "0.00",
        "-1",
        "1e5",
        "NaN",
        "Infinity",
        "",
        "+1",
        "1_000",
        "0.000000001",
        "1000000000000",
    ];
    are_no_prices(amounts.map(|amount| Behaviour::Amount(amount.to_owned()))).await
}

#[tokio::test]
async fn a_status_other_than_200_is_no_price() -> anyhow::Result<()> {
    let price = r#"{"data":{"base":"BTC","currency":"USD","amount":"48478.88"}}"#;
    let with_price = |status| Behaviour::Raw(status, "application/json".to_owned(), price.to_owned());
    are_no_prices([
        Behaviour::Status(429),
        Behaviour::RetryAfter(429, 1),
        Behaviour::Status(500),
        with_price(500),
        with_price(201),
        Behaviour::Redirect,
    ])
    .await
}

#[tokio::test]
async fn a_body_that_is_not_the_price_asked_for_is_no_price() -> anyhow::Result<()> {
    let number = r#"{"data":{"base":"BTC","currency":"USD","amount":48478.88}}"#;
    let cut_short = r#"{"data":{"base":"BTC","currency":"USD","amount":"48478.88"#;
    are_no_prices([
        Behaviour::Html,
        Behaviour::WrongBase,
        Behaviour::WrongCurrency,
        Behaviour::Oversize,
        Behaviour::Body(number.to_owned()),
        Behaviour::Body(cut_short.to_owned()),
        Behaviour::Body(String::new()),
    ])
    .await
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up() -> anyhow::Result<()> {
    are_no_prices([Behaviour::Hang, Behaviour::Delay(Duration::from_secs(60))]).await
}

#[tokio::test]
async fn a_provider_that_is_away_is_503_and_the_service_stays_healthy() -> anyhow::Result<()> {
    const NOBODY_LISTENS_HERE: &str = "1";
    let service = BtcPrice::start(&[("CB_PORT", NOBODY_LISTENS_HERE)]).await?;
    let refusal = service.buy("GBP").await?;
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refusal.retry_after, Some(1));
    assert_eq!(service.get("/healthcheck").await?.status, StatusCode::OK);
    Ok(())
}
