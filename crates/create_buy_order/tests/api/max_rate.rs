//! `max_rate`: no new order is made above it. It does not change what a repeat is.

use cluster::{Cluster, Service};
use serde_json::{Value, json};

use super::contract::{items, send};
use super::{Answer, book, buy, new_key, put_json, start_cluster, start_cluster_with_quotes_for};

/// So short that every order asks for a new rate.
const NO_TIME: &str = "0.000001";

/// An order of 1 USD.
async fn buy_at_most(cluster: &Cluster, key: &str, max_rate: &str) -> anyhow::Result<Answer> {
    let mut order = cluster::order_with_key("USD", "1", key);
    order["max_rate"] = max_rate.into();
    put_json(&cluster.http(), &cluster.url(Service::CreateBuyOrder), &order).await
}

#[tokio::test]
async fn no_order_is_made_above_the_max_rate_and_one_at_an_equal_rate_is() -> anyhow::Result<()> {
    let cluster = start_cluster_with_quotes_for(NO_TIME).await?;
    for (rate, max_rate, is_accepted) in [
        ("48478.88", "48478.88", true),
        ("48478.88", "048478.88000000", true),
        ("48478.88", "48478.87999999", false),
        ("48478.88000001", "48478.88", false),
        ("48478.88", "0.00000001", false),
        ("1", "1.00000001", true),
        ("1.00000001", "1", false),
        ("999999999999.99999999", "999999999999.99999999", true),
        ("999999999999.99999999", "999999999999.99999998", false),
    ] {
        cluster.prices().set_rate("USD", rate);
        let (key, before) = (new_key(), book(&cluster).await?);
        let answer = buy_at_most(&cluster, &key, max_rate).await?;
        if is_accepted {
            assert_eq!(answer.status, 200, "{max_rate} at {rate}: {answer:?}");
            assert_eq!(book(&cluster).await?.0, before.0 + 1);
        } else {
            assert_eq!(answer.status, 409, "{max_rate} at {rate}: {answer:?}");
            assert_eq!(book(&cluster).await?, before, "{max_rate} at {rate}");
            // The key is still free.
            let accepted = buy(&cluster, "USD", "1", &key).await?;
            assert_eq!((accepted.status, accepted.replayed), (200, false), "{accepted:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_refusal_names_both_rates_and_is_counted() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let refused = buy_at_most(&cluster, &new_key(), "48000.5").await?;
    assert_eq!(
        (refused.status, refused.body),
        (
            409,
            json!({"detail": "the market rate is 48478.88000000, above the max_rate of 48000.50000000"})
        )
    );
    let shown = super::metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await?;
    let counted = r#"buy_orders_refused_total{reason="rate_above_max"} 1"#;
    assert!(shown.iter().any(|line| line == counted), "{shown:?}");
    Ok(())
}

#[tokio::test]
async fn a_repeat_is_answered_with_its_order_whatever_its_max_rate_and_the_market_rate_are()
-> anyhow::Result<()> {
    // Without a quote at hand, and with one.
    for quotes_for in [NO_TIME, "60"] {
        let cluster = start_cluster_with_quotes_for(quotes_for).await?;
        let key = new_key();
        let first = buy_at_most(&cluster, &key, "48478.88").await?;
        assert_eq!((first.status, first.replayed), (200, false), "{first:?}");
        cluster.prices().set_rate("USD", "60000");
        let repeats = [
            buy_at_most(&cluster, &key, "48478.88").await?,
            buy_at_most(&cluster, &key, "1").await?,
            buy_at_most(&cluster, &key, "70000").await?,
            buy(&cluster, "USD", "1", &key).await?,
        ];
        for repeat in repeats {
            assert_eq!(
                (repeat.status, repeat.replayed, &repeat.body),
                (200, true, &first.body),
                "{quotes_for}"
            );
        }
        assert_eq!(book(&cluster).await?.0, 1);
        // The bound holds for a new order.
        assert_eq!(buy_at_most(&cluster, &new_key(), "1").await?.status, 409);
    }
    Ok(())
}

/// The answer to an order with this literal as its `max_rate`.
async fn send_literal(cluster: &Cluster, literal: &str) -> anyhow::Result<Answer> {
    let key = new_key();
    let body = format!(r#"{{"currency":"USD","amount":"1","idempotence_key":"{key}","max_rate":{literal}}}"#);
    send(cluster, Some("application/json"), body).await
}

#[tokio::test]
async fn a_max_rate_is_a_text_or_a_number_of_literal_digits_or_null_for_none() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    for (literal, status) in [
        ("48478.88", 200),
        ("48478.88000000", 200),
        ("48478.87999999", 409),
        ("999999999999.99999999", 200),
        ("\"48479\"", 200),
        ("null", 200),
    ] {
        let answer = send_literal(&cluster, literal).await?;
        assert_eq!(answer.status, status, "{literal}: {answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_faulty_max_rate_is_refused_like_a_faulty_amount() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    for (literal, kind, message) in [
        (
            "\"0\"",
            "value_error",
            "Value error, max_rate must be greater than 0",
        ),
        ("0", "value_error", "Value error, max_rate must be greater than 0"),
        (
            "-1",
            "value_error",
            "Value error, max_rate must be greater than 0",
        ),
        (
            "1000000000000",
            "value_error",
            "Value error, max_rate must be less than 1000000000000",
        ),
        (
            "\"1.000000001\"",
            "value_error",
            "Value error, max_rate must have no more than 8 decimals",
        ),
        (
            "1.000000000",
            "value_error",
            "Value error, max_rate must have no more than 8 decimals",
        ),
        ("\"1e5\"", "decimal_parsing", "Input should be a valid decimal"),
        ("1e5", "decimal_parsing", "Input should be a valid decimal"),
        ("\"\"", "decimal_parsing", "Input should be a valid decimal"),
        ("\"NaN\"", "decimal_parsing", "Input should be a valid decimal"),
        ("[1]", "string_type", "Input should be a valid string"),
        ("true", "string_type", "Input should be a valid string"),
    ] {
        let refused = send_literal(&cluster, literal).await?;
        assert_eq!(refused.status, 422, "{literal}: {refused:?}");
        let input: Value = serde_json::from_str(literal)?;
        assert_eq!(
            items(&refused),
            [(kind.to_owned(), json!(["body", "max_rate"]), input)]
        );
        assert_eq!(refused.body["detail"][0]["msg"], message, "{literal}");
    }

    let all = json!({"max_rate": "x", "idempotence_key": "k", "amount": "x", "currency": "JPY"});
    let refused = put_json(&cluster.http(), &cluster.url(Service::CreateBuyOrder), &all).await?;
    let fields: Vec<Value> = items(&refused)
        .into_iter()
        .map(|(_, loc, _)| loc[1].clone())
        .collect();
    assert_eq!(fields, ["currency", "amount", "idempotence_key", "max_rate"]);
    assert_eq!(book(&cluster).await?.0, 0);
    Ok(())
}

#[tokio::test]
async fn the_document_describes_the_max_rate_as_optional() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let url = cluster.url(Service::CreateBuyOrder) + "/openapi.json";
    let document: Value = cluster.http().get(url).send().await?.json().await?;
    let schema = &document["components"]["schemas"]["BuyOrderRequest"];
    assert_eq!(
        schema["required"],
        json!(["currency", "amount", "idempotence_key"])
    );
    assert!(schema["properties"]["max_rate"]["oneOf"].is_array(), "{schema}");
    Ok(())
}
