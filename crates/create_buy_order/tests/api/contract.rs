use anyhow::ensure;
use cluster::Service;
use common::money::Currency;
use serde_json::{Value, json};

use super::{Answer, answer, buy, count, new_key, put_json, start_cluster};

const KEY: &str = "5fa733ae-82b4-4ac0-8478-35ff30dae879";

#[tokio::test]
async fn an_accepted_order_is_answered_in_the_form_of_the_contract() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let accepted = buy(&cluster, "USD", "123.45", KEY).await?;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    assert!(!accepted.replayed);
    assert_eq!(accepted.body["idempotence_key"], KEY);
    let order = accepted.body["buy_order"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let members: Vec<&str> = order.keys().map(String::as_str).collect();
    assert_eq!(members.len(), 6, "{members:?}");
    assert_eq!(order["currency"], "USD");
    assert_eq!(order["currency_amount"], "123.45");
    assert_eq!(order["btc_rate"], "48478.88000000");
    assert_eq!(order["btc_amount"], "0.00254647");
    ensure!(uuid::Uuid::parse_str(accepted.order("id")).is_ok());
    let created_at = accepted.order("created_at");
    assert_eq!(
        created_at.len(),
        "2026-11-23T15:37:32.531853Z".len(),
        "{created_at}"
    );
    assert!(created_at.ends_with('Z'));

    for (currency, rate) in [("EUR", "41191.91000000"), ("GBP", "35330.89000000")] {
        let accepted = buy(&cluster, currency, "1", &new_key()).await?;
        assert_eq!(
            (
                accepted.status,
                accepted.order("btc_rate"),
                accepted.order("currency_amount")
            ),
            (200, rate, "1.00")
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_accepted_order_and_its_repeats_have_one_position_and_a_refusal_has_none() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let accepted = buy(&cluster, "USD", "123.45", KEY).await?;
    ensure!(
        accepted.status == 200 && accepted.position.is_some(),
        "{accepted:?}"
    );
    let repeat = buy(&cluster, "USD", "123.45", KEY).await?;
    assert!(repeat.replayed);
    assert_eq!(repeat.position, accepted.position);
    let other = buy(&cluster, "USD", "123.45", &new_key()).await?;
    ensure!(
        other.position.is_some() && other.position != accepted.position,
        "{other:?}"
    );
    for (amount, status) in [("0", 422), ("999999999.99", 409)] {
        let refused = buy(&cluster, "USD", amount, &new_key()).await?;
        assert_eq!((refused.status, refused.position), (status, None));
    }
    Ok(())
}

#[tokio::test]
async fn an_amount_may_be_a_json_number_and_is_read_by_its_digits() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    for (literal, expected) in [
        ("999999.01", "999999.01"),
        ("5", "5.00"),
        ("0.1", "0.10"),
        ("\"007.5\"", "7.50"),
    ] {
        let body = format!(
            r#"{{"currency":"USD","amount":{literal},"idempotence_key":"{}","more":[1]}}"#,
            new_key()
        );
        let accepted = send(&cluster, Some("application/json"), body).await?;
        assert_eq!(
            (accepted.status, accepted.order("currency_amount")),
            (200, expected),
            "{literal}"
        );
    }
    Ok(())
}

pub(crate) async fn send(
    cluster: &cluster::Cluster,
    content_type: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> anyhow::Result<Answer> {
    let mut request = cluster
        .http()
        .put(format!("{}/buy_order", cluster.url(Service::CreateBuyOrder)))
        .body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    answer(request.send().await?).await
}

/// Type, loc and input of each item of a `422`: what clients match on.
pub(crate) fn items(answer: &Answer) -> Vec<(String, Value, Value)> {
    let items = answer.body["detail"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| {
            (
                item["type"].as_str().unwrap_or_default().to_owned(),
                item["loc"].clone(),
                item["input"].clone(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_as_fastapi_does() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let json_type = Some("application/json");
    let cases: [(Option<&str>, &str, &str, Value, Value); 8] = [
        (json_type, "", "missing", json!(["body"]), Value::Null),
        (json_type, "{bad", "json_invalid", json!(["body", 1]), json!({})),
        (
            json_type,
            "[1]",
            "model_attributes_type",
            json!(["body"]),
            json!([1]),
        ),
        (json_type, "5", "model_attributes_type", json!(["body"]), json!(5)),
        (
            json_type,
            "\"x\"",
            "model_attributes_type",
            json!(["body"]),
            json!("x"),
        ),
        (None, "{}", "model_attributes_type", json!(["body"]), json!("{}")),
        (
            Some("text/plain"),
            "{}",
            "model_attributes_type",
            json!(["body"]),
            json!("{}"),
        ),
        (
            Some("application/x-www-form-urlencoded"),
            "{\"a\":1}",
            "model_attributes_type",
            json!(["body"]),
            json!("{\"a\":1}"),
        ),
    ];
    for (content_type, body, kind, loc, input) in cases {
        let refused = send(&cluster, content_type, body).await?;
        assert_eq!(refused.status, 422, "{body}");
        assert_eq!(items(&refused), [(kind.to_owned(), loc, input)], "{body}");
    }
    assert_eq!(count(&cluster, "buy_order").await?, 0);
    Ok(())
}

#[tokio::test]
async fn every_faulty_field_is_named_in_one_answer_in_field_order() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let url = cluster.url(Service::CreateBuyOrder);
    let all_missing = put_json(&cluster.http(), &url, &json!({})).await?;
    let missing = |field: &str| ("missing".to_owned(), json!(["body", field]), json!({}));
    assert_eq!(
        items(&all_missing),
        ["currency", "amount", "idempotence_key"].map(missing)
    );

    let all_faulty = put_json(
        &cluster.http(),
        &url,
        &json!({"currency": "JPY", "amount": "x", "idempotence_key": "k"}),
    )
    .await?;
    let kinds: Vec<String> = items(&all_faulty).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["value_error", "decimal_parsing", "uuid_parsing"]);
    let keys = all_faulty.body["detail"][2]
        .as_object()
        .cloned()
        .unwrap_or_default();
    assert!(keys.contains_key("ctx") && !keys.contains_key("url"), "{keys:?}");
    assert!(
        all_faulty.body["detail"][0]["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains(&Currency::supported()))
    );
    Ok(())
}

#[tokio::test]
async fn each_faulty_value_is_refused_with_its_type_and_itself_as_input() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let mut cases: Vec<(&str, &str, &str)> = vec![
        ("currency", "\"JPY\"", "value_error"),
        ("currency", "\"usd\"", "value_error"),
        ("currency", "5", "string_type"),
        ("currency", "null", "string_type"),
        ("idempotence_key", "\"x\"", "uuid_parsing"),
        ("idempotence_key", "7", "uuid_type"),
        ("idempotence_key", "null", "uuid_type"),
    ];
    for bounded in [
        "\"0\"",
        "0",
        "-1",
        "\"-0.01\"",
        "\"1000000000\"",
        "1000000000.00",
        "\"0.001\"",
        "1.000",
        "99999999999999999999999999999",
    ] {
        cases.push(("amount", bounded, "value_error"));
    }
    for no_decimal in [
        "\"\"",
        "\"abc\"",
        "\"1e5\"",
        "1e5",
        "\"NaN\"",
        "\"Infinity\"",
        "\"+5\"",
        "\"- 5\"",
        "\" 5\"",
        "\"1_000\"",
        "\"1,5\"",
        "\".5\"",
    ] {
        cases.push(("amount", no_decimal, "decimal_parsing"));
    }
    for no_text in ["null", "[1]", "{\"a\":1}", "true"] {
        cases.push(("amount", no_text, "string_type"));
    }
    for (field, literal, kind) in cases {
        let value = |name: &str, valid: String| if name == field { literal.to_owned() } else { valid };
        let body = format!(
            r#"{{"currency":{},"amount":{},"idempotence_key":{}}}"#,
            value("currency", "\"USD\"".to_owned()),
            value("amount", "\"1\"".to_owned()),
            value("idempotence_key", format!("\"{KEY}\""))
        );
        let refused = send(&cluster, Some("application/json"), body).await?;
        assert_eq!(refused.status, 422, "{field}: {literal}");
        let input: Value = serde_json::from_str(literal)?;
        assert_eq!(
            items(&refused),
            [(kind.to_owned(), json!(["body", field]), input)],
            "{field}: {literal}"
        );
    }
    assert_eq!(count(&cluster, "buy_order").await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_message_of_an_amount_out_of_bounds_names_the_bound() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    for (amount, bound) in [
        ("0", "greater than 0"),
        ("0.00", "greater than 0"),
        ("-1", "greater than 0"),
        ("1000000000", "less than 1000000000"),
        ("99999999999999999999999999999", "less than 1000000000"),
        ("0.001", "2 decimals"),
        ("1.000", "2 decimals"),
    ] {
        let refused = buy(&cluster, "USD", amount, KEY).await?;
        let msg = refused.body["detail"][0]["msg"].as_str().unwrap_or_default();
        assert!(msg.contains(bound), "{amount}: {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn other_refusals_are_json_too() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let url = cluster.url(Service::CreateBuyOrder);
    let too_large = send(&cluster, Some("application/json"), " ".repeat(20_000)).await?;
    assert_eq!(too_large.status, 413);
    assert!(too_large.body["detail"].is_string());

    let unknown = answer(cluster.http().get(format!("{url}/nowhere")).send().await?).await?;
    assert_eq!(
        (unknown.status, unknown.body),
        (404, json!({"detail": "Not Found"}))
    );

    let wrong_method = cluster.http().post(format!("{url}/buy_order")).send().await?;
    assert_eq!(
        wrong_method
            .headers()
            .get("allow")
            .and_then(|allow| allow.to_str().ok()),
        Some("PUT")
    );
    let wrong_method = answer(wrong_method).await?;
    assert_eq!(
        (wrong_method.status, wrong_method.body),
        (405, json!({"detail": "Method Not Allowed"}))
    );

    let healthy = cluster.http().get(format!("{url}/healthcheck")).send().await?;
    assert_eq!(
        (healthy.status().as_u16(), healthy.text().await?),
        (200, "null".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn the_documented_example_works_when_tried_and_the_documented_errors_are_the_real_ones()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let url = cluster.url(Service::CreateBuyOrder);
    let document = cluster.http().get(format!("{url}/openapi.json")).send().await?;
    let document: Value = document.json().await?;
    assert_eq!(document["openapi"], "3.1.0");
    let responses = &document["paths"]["/buy_order"]["put"]["responses"];
    let statuses: Vec<&String> = responses
        .as_object()
        .into_iter()
        .flatten()
        .map(|(status, _)| status)
        .collect();
    assert_eq!(
        statuses,
        ["200", "400", "405", "408", "409", "413", "422", "500", "503"]
    );

    let schema = &document["components"]["schemas"]["BuyOrderRequest"]["properties"];
    let mut example = json!({});
    for (name, property) in schema.as_object().into_iter().flatten() {
        example[name] = match &property["example"] {
            Value::Null => property["examples"][0].clone(),
            example => example.clone(),
        };
    }
    let tried = put_json(&cluster.http(), &url, &example).await?;
    assert_eq!(tried.status, 200, "{tried:?}");

    let documented =
        |status: u16| responses[status.to_string()]["content"]["application/json"]["example"].clone();
    let mut faulty = example.clone();
    faulty["amount"] = json!("0");
    let wrong_method = cluster.http().post(format!("{url}/buy_order")).send().await?;
    let mut refusals = vec![
        put_json(&cluster.http(), &url, &faulty).await?,
        send(&cluster, Some("application/json"), " ".repeat(20_000)).await?,
        answer(wrong_method).await?,
    ];
    cluster.prices().set_rate("EUR", "0.01");
    refusals.push(buy(&cluster, "EUR", "100", &new_key()).await?);
    cluster.prices().answer_with(cluster::Behaviour::Status(500));
    refusals.push(buy(&cluster, "GBP", "1", &new_key()).await?);
    let refused: Vec<u16> = refusals.iter().map(|refusal| refusal.status).collect();
    assert_eq!(refused, [422, 413, 405, 409, 503]);
    for refusal in refusals {
        assert_eq!(refusal.body, documented(refusal.status));
    }
    Ok(())
}

#[tokio::test]
async fn the_write_model_away_is_answered_with_503_and_mended_by_itself() -> anyhow::Result<()> {
    let options = cluster::Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]).with_own_servers();
    let cluster = cluster::Cluster::start(options).await?;
    let key = new_key();
    cluster.kill_server(cluster::Server::WriteModel).await?;
    let refused = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!(
        (refused.status, refused.retry_after.is_some()),
        (503, true),
        "{refused:?}"
    );
    cluster.start_server(cluster::Server::WriteModel).await?;
    cluster::wait_until(
        "an order is accepted again",
        std::time::Duration::from_secs(30),
        async || Ok(buy(&cluster, "USD", "10", &key).await?.status == 200),
    )
    .await?;
    assert_eq!(count(&cluster, "buy_order").await?, 1);
    Ok(())
}
