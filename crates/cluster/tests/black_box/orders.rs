//! `PUT /buy_order`.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PROJECTION_LIMIT, Pages as _, System};

/// A decimal text with so many decimals, in units of its last decimal.
fn units(text: &Value, decimals: usize) -> anyhow::Result<u128> {
    let text = text.as_str().context("a decimal is not a string")?;
    let (whole, fraction) = text.split_once('.').context("no decimal point")?;
    ensure!(fraction.len() == decimals, "{text} has not {decimals} decimals");
    Ok(format!("{whole}{fraction}").parse()?)
}

pub(crate) async fn an_accepted_order_is_answered_with_exact_decimals(system: &System) -> anyhow::Result<()> {
    let key = Uuid::new_v4();
    let answer = system.order("USD", "123.45", key).await?;
    ensure!(
        answer.header("idempotent-replayed").is_none(),
        "a new order is marked as a repeat"
    );
    let body = answer.expect(200)?;
    let order = &body["buy_order"];
    ensure!(body["idempotence_key"] == json!(key), "another key: {body}");
    ensure!(
        order["currency"] == "USD" && order["currency_amount"] == "123.45",
        "another order: {body}"
    );
    let id: Uuid = order["id"].as_str().context("no id")?.parse()?;
    ensure!(id.get_version_num() == 4, "the id can be guessed: {id}");
    let created_at = order["created_at"].as_str().context("no time")?;
    ensure!(
        created_at.len() == "2026-11-23T15:37:32.531853Z".len() && created_at.ends_with('Z'),
        "the time is not UTC with microseconds: {created_at}"
    );
    // amount / rate, rounded up: in units of 10^-8 that is cents * 10^14 / (rate * 10^8).
    let cents = units(&order["currency_amount"], 2)?;
    let exact = (cents * 10_u128.pow(14)).div_ceil(units(&order["btc_rate"], 8)?);
    ensure!(
        units(&order["btc_amount"], 8)? == exact,
        "expected {exact} satoshi: {body}"
    );
    Ok(())
}

pub(crate) async fn no_cache_keeps_an_order_or_a_page(system: &System) -> anyhow::Result<()> {
    let accepted = system.order("USD", "0.01", Uuid::new_v4()).await?;
    let refused = system.put(&json!({})).await?;
    let (page, unknown) = (system.page("").await?, system.page("page_size=0").await?);
    for (answer, status) in [(accepted, 200), (refused, 422), (page, 200), (unknown, 422)] {
        ensure!(answer.status == status, "{answer:?}");
        ensure!(answer.header("cache-control") == Some("no-store"), "{answer:?}");
    }
    Ok(())
}

pub(crate) async fn an_accepted_order_appears_on_the_first_page(system: &System) -> anyhow::Result<()> {
    let order = system.place("EUR", "0.31").await?;
    cluster::wait_until("the order is on the first page", PROJECTION_LIMIT, async || {
        let page = system.page("").await?.expect(200)?;
        let rows = page["rows"].as_array().context("no rows")?;
        Ok(rows.contains(&order))
    })
    .await
}

pub(crate) async fn an_order_is_on_the_page_that_has_its_position(system: &System) -> anyhow::Result<()> {
    for _ in 0..50 {
        let key = Uuid::new_v4();
        let placed = system.order("USD", "0.30", key).await?;
        let position = placed.position()?;
        ensure!(
            system.order("USD", "0.30", key).await?.position()? == position,
            "a repeat has another position"
        );
        ensure!(placed.status == 200, "not accepted: {placed:?}");
        let order = placed.json()?["buy_order"].take();
        // The projection may take longer than one request waits. Then the answer is 503, and never a page without the order.
        let url = format!("{}/buy_orders?page_size=1000", system.fetch_buy_orders);
        cluster::wait_until("a page waits for the order", PROJECTION_LIMIT, async || {
            let asked = system.http.get(&url).header("order-position", &position);
            let answer = system.send(asked).await?;
            if answer.status == 503 {
                ensure!(answer.header("retry-after").is_some(), "{answer:?}");
                return Ok(false);
            }
            let page = answer.expect(200)?;
            let rows = page["rows"].as_array().context("no rows")?;
            // Not an error, which would be tried again.
            assert!(rows.contains(&order), "a page without {order}: {page}");
            Ok(true)
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn a_repeat_is_answered_with_the_first_order_and_marked(
    system: &System,
) -> anyhow::Result<()> {
    let key = Uuid::new_v4();
    let first = system.order("USD", "0.32", key).await?.expect(200)?;
    for _ in 0..3 {
        let repeat = system.order("USD", "0.32", key).await?;
        ensure!(
            repeat.header("idempotent-replayed") == Some("true"),
            "not marked: {repeat:?}"
        );
        ensure!(
            repeat.expect(200)? == first,
            "a repeat was answered with another order"
        );
    }
    let other = system.order("USD", "0.33", key).await?;
    ensure!(
        other.header("idempotent-replayed").is_none(),
        "another amount is another order: {other:?}"
    );
    ensure!(
        other.expect(200)?["buy_order"]["id"] != first["buy_order"]["id"],
        "another amount, the same order"
    );
    Ok(())
}

pub(crate) async fn an_amount_in_another_spelling_is_a_repeat(system: &System) -> anyhow::Result<()> {
    let key = Uuid::new_v4();
    let first = system.order("EUR", "1", key).await?.expect(200)?;
    for amount in [json!("1.0"), json!("1.00"), json!(1)] {
        let mut body = cluster::order_with_key("EUR", "1", key);
        body["amount"] = amount.clone();
        let repeat = system.put(&body).await?;
        ensure!(
            repeat.header("idempotent-replayed") == Some("true"),
            "{amount} is no repeat: {repeat:?}"
        );
        ensure!(
            repeat.expect(200)? == first,
            "{amount} was answered with another order"
        );
    }
    Ok(())
}

/// Faulty bodies, and the faults that their answers name, as type and field.
fn faulty_orders() -> Vec<(Value, Vec<(&'static str, &'static str)>)> {
    let order = |currency: Value, amount: Value, key: Value| json!({"currency": currency, "amount": amount, "idempotence_key": key});
    let all = |types: [&'static str; 3]| {
        types
            .into_iter()
            .zip(["currency", "amount", "idempotence_key"])
            .collect()
    };
    let mut rows = vec![
        (json!({}), all(["missing"; 3])),
        (
            order(json!("JPY"), json!("x"), json!("y")),
            all(["value_error", "decimal_parsing", "uuid_parsing"]),
        ),
        (
            order(json!(5), json!(null), json!(7)),
            all(["string_type", "string_type", "uuid_type"]),
        ),
    ];
    let amounts = [
        ("0", "value_error"),
        ("-1", "value_error"),
        ("1000000000", "value_error"),
        ("0.001", "value_error"),
        ("1e2", "decimal_parsing"),
        ("NaN", "decimal_parsing"),
    ];
    rows.extend(amounts.map(|(amount, fault)| {
        let body = order(json!("USD"), json!(amount), json!(Uuid::new_v4()));
        (body, vec![(fault, "amount")])
    }));
    rows
}

pub(crate) async fn every_fault_of_an_order_is_named_in_one_answer(system: &System) -> anyhow::Result<()> {
    for (body, faults) in faulty_orders() {
        let detail = system.put(&body).await?.expect(422)?["detail"].take();
        let named: Vec<(&str, &str)> = detail
            .as_array()
            .context("no list of faults")?
            .iter()
            .map(|item| {
                (
                    item["type"].as_str().unwrap_or("?"),
                    item["loc"][1].as_str().unwrap_or("?"),
                )
            })
            .collect();
        ensure!(named == faults, "{body} was answered with {detail}");
    }
    let list = system.put(&json!([1])).await?.expect(422)?;
    ensure!(
        list["detail"][0]["type"] == "model_attributes_type",
        "a list was answered with {list}"
    );
    Ok(())
}

pub(crate) async fn an_order_past_the_cap_is_refused_whole(system: &System) -> anyhow::Result<()> {
    let key = Uuid::new_v4();
    let refusal = system.order("USD", "999999999.99", key).await?.expect(409)?;
    ensure!(refusal["detail"].is_string(), "no sentence: {refusal}");
    // The key was not used up, and a smaller order still fits.
    let smaller = system.order("USD", "0.34", key).await?;
    ensure!(
        smaller.header("idempotent-replayed").is_none(),
        "a refused order left its key behind"
    );
    smaller.expect(200)?;
    Ok(())
}
