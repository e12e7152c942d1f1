//! A price that is far from the last good one.

use cluster::wait_until;
use reqwest::StatusCode;
use serde_json::Value;

use crate::service::{BtcPrice, LIMIT};

/// No quote is reused.
const ALWAYS_NEW: (&str, &str) = ("QUOTE_MAX_AGE_S", "0.000001");
const HALF: (&str, &str) = ("QUOTE_MAX_DEVIATION", "0.5");
const NEVER_BELIEVED: (&str, &str) = ("QUOTE_DEVIATION_HOLD_S", "3600");

/// The fields of an event about a rate.
fn rates(event: &Value) -> [&str; 4] {
    ["source", "currency", "last_good_rate", "offered_rate"]
        .map(|name| event[name].as_str().unwrap_or_default())
}

async fn event(service: &BtcPrice, name: &str) -> anyhow::Result<Value> {
    let mut found = None;
    wait_until(&format!("the event {name}"), LIMIT, async || {
        found = service.events(name).pop();
        Ok(found.is_some())
    })
    .await?;
    Ok(found.unwrap_or_default())
}

#[tokio::test]
async fn one_absurd_price_is_refused_in_its_currency_only_and_the_next_good_one_is_quoted()
-> anyhow::Result<()> {
    let service = BtcPrice::start(&[ALWAYS_NEW, HALF, NEVER_BELIEVED]).await?;
    let first = service.buy("USD").await?;
    assert_eq!(
        (first.status, &first.body["rate"]),
        (StatusCode::OK, &"48478.88".into())
    );
    for absurd in ["999999999999.99999999", "0.00000001", "72718.33", "24239.43"] {
        service.prices().set_rate("USD", absurd);
        let refused = service.buy("USD").await?;
        assert_eq!(
            refused.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{absurd}: {refused:?}"
        );
        assert_eq!(
            refused.body["detail"],
            "no recent price is available, try again shortly"
        );
        assert!(refused.retry_after.is_some(), "{refused:?}");

        service.prices().set_rate("USD", "48478.88");
        service.buy_until("USD", StatusCode::OK).await?;
    }
    let refused = event(&service, "quote_deviation_refused").await?;
    assert_eq!(
        rates(&refused),
        ["simulator", "USD", "48478.88000000", "24239.43000000"]
    );

    // The first price of a currency is compared with nothing.
    service.prices().set_rate("EUR", "0.01");
    assert_eq!(service.buy("EUR").await?.status, StatusCode::OK);

    let shown = service
        .request(reqwest::Method::GET, "/metrics")
        .send()
        .await?
        .text()
        .await?;
    let counted = r#"coinbase_requests_total{outcome="deviates"} 4"#;
    assert!(shown.lines().any(|line| line == counted), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_price_at_the_bound_is_quoted() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[ALWAYS_NEW, HALF, NEVER_BELIEVED]).await?;
    for rate in ["48478.88", "72718.32", "36359.16"] {
        service.prices().set_rate("USD", rate);
        let quote = service.buy("USD").await?;
        assert_eq!(
            (quote.status, &quote.body["rate"]),
            (StatusCode::OK, &rate.into()),
            "{quote:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_price_that_is_repeated_for_the_hold_is_believed_and_the_old_one_then_is_not() -> anyhow::Result<()>
{
    let service = BtcPrice::start(&[ALWAYS_NEW, HALF, ("QUOTE_DEVIATION_HOLD_S", "1")]).await?;
    service.buy("USD").await?;
    service.prices().set_rate("USD", "9000.00");
    assert_eq!(service.buy("USD").await?.status, StatusCode::SERVICE_UNAVAILABLE);

    let quote = service.buy_until("USD", StatusCode::OK).await?;
    assert_eq!(quote.body["rate"], "9000.00");
    let believed = event(&service, "quote_deviation_believed").await?;
    assert_eq!(
        rates(&believed),
        ["simulator", "USD", "48478.88000000", "9000.00000000"]
    );

    service.prices().set_rate("USD", "48478.88");
    assert_eq!(service.buy("USD").await?.status, StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}

#[tokio::test]
async fn the_first_price_after_a_start_is_quoted_whatever_it_is() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[ALWAYS_NEW, HALF, NEVER_BELIEVED]).await?;
    service.buy("USD").await?;
    service.prices().set_rate("USD", "9000.00");
    assert_eq!(service.buy("USD").await?.status, StatusCode::SERVICE_UNAVAILABLE);
    service.cluster().stop(cluster::Service::BtcPrice).await?;
    service
        .cluster()
        .start_service(cluster::Service::BtcPrice)
        .await?;
    assert_eq!(service.buy("USD").await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn without_the_bound_any_price_is_quoted_and_the_start_says_so() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[ALWAYS_NEW]).await?;
    let warning = event(&service, "quotes_not_limited").await?;
    assert!(
        warning["info"]
            .as_str()
            .is_some_and(|info| info.contains("QUOTE_MAX_DEVIATION")),
        "{warning}"
    );
    service.buy("USD").await?;
    service.prices().set_rate("USD", "0.01");
    assert_eq!(service.buy("USD").await?.status, StatusCode::OK);

    let limited = BtcPrice::start(&[HALF]).await?;
    event(&limited, "service_started").await?;
    assert!(limited.events("quotes_not_limited").is_empty());
    Ok(())
}
