//! The contract of `GET /buy` and of the routes that every service has.

use cluster::wait_until;
use common::money::Currency;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{BtcPrice, LIMIT, answer};

#[tokio::test]
async fn every_supported_currency_is_quoted_in_the_providers_own_digits() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    let rates = ["48478.880", "999999999999.99999999", "7"];
    for (currency, rate) in Currency::ALL
        .map(Currency::iso3)
        .into_iter()
        .zip(rates.into_iter().cycle())
    {
        service.prices().set_rate(currency, rate);
        let quote = service.buy(currency).await?;
        assert_eq!(quote.status, StatusCode::OK);
        assert_eq!(quote.content_type.as_deref(), Some("application/json"));
        assert_eq!(quote.body["currency"], currency);
        assert_eq!(quote.body["rate"], rate);
        assert!(is_rfc3339_micros(&quote.body["timestamp"]), "{}", quote.body);
        assert_eq!(quote.body.as_object().map(serde_json::Map::len), Some(3));
    }
    assert_eq!(service.prices().requests(), Currency::ALL.len());
    Ok(())
}

/// `2026-11-23T15:37:32.531853Z`, down to the number of digits.
fn is_rfc3339_micros(timestamp: &Value) -> bool {
    let shape = timestamp
        .as_str()
        .unwrap_or_default()
        .replace(|digit: char| digit.is_ascii_digit(), "9");
    shape == "9999-99-99T99:99:99.999999Z"
}

#[tokio::test]
async fn a_currency_that_is_not_supported_is_400_and_asks_nobody() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    for (query, named) in [
        ("JPY", "JPY"),
        ("usd", "usd"),
        ("", ""),
        ("USD%20", "USD "),
        ("BTC", "BTC"),
    ] {
        let refusal = service.buy(query).await?;
        let supported = Currency::supported();
        let detail = format!("unsupported currency: {named}.  supported: {supported}");
        assert_eq!(
            (refusal.status, refusal.body),
            (StatusCode::BAD_REQUEST, json!({ "detail": detail }))
        );
    }
    assert_eq!(service.prices().requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_missing_currency_is_422_by_its_name() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    for path in ["/buy", "/buy?", "/buy?Currency=USD"] {
        let refusal = service.get(path).await?;
        let item =
            json!({"type": "missing", "loc": ["query", "currency"], "msg": "Field required", "input": null});
        assert_eq!(refusal.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert_eq!(
            refusal.content_type.as_deref(),
            Some("application/json"),
            "{path}"
        );
        assert_eq!(refusal.body, json!({ "detail": [item] }), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_health_are_answered_in_json() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;

    let unknown = service.get("/sell").await?;
    assert_eq!(
        (unknown.status, unknown.body),
        (StatusCode::NOT_FOUND, json!({"detail": "Not Found"}))
    );

    let wrong = answer(service.request(Method::PUT, "/buy?currency=USD")).await?;
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.body, json!({"detail": "Method Not Allowed"}));
    assert!(wrong.allow.is_some_and(|methods| methods.contains("GET")));

    let health = service.get("/healthcheck").await?;
    assert_eq!((health.status, health.body), (StatusCode::OK, Value::Null));
    Ok(())
}

#[tokio::test]
async fn each_quote_leaves_its_events_and_a_simulator_is_called_one() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    let quote = service.buy("EUR").await?;
    wait_until("the events of a quote", LIMIT, async || {
        Ok(!service.events("btc_price_quoted").is_empty())
    })
    .await?;

    let requested = service.events("btc_price_requested");
    assert_eq!(requested.len(), 1);
    assert_eq!(requested[0]["currency"], "EUR");
    let quoted = &service.events("btc_price_quoted")[0];
    assert_eq!(quoted["source"], "simulator");
    for field in ["timestamp", "currency", "rate"] {
        assert_eq!(quoted[field], quote.body[field], "{field}");
    }
    Ok(())
}
