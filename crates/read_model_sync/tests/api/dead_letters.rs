use cluster::Service;
use serde_json::{Value, json};

use super::broker::Broker;
use super::{event, external_id, logged, projection, row, rows, rows_appear};

fn with(id: i64, field: &str, value: Value) -> Value {
    let mut event = event(id);
    event[field] = value;
    event
}

fn without(id: i64, field: &str) -> Value {
    let mut event = event(id);
    event.as_object_mut().unwrap().remove(field);
    event
}

/// Bodies that the service cannot read, each with a part of the expected reason.
fn garbage() -> Vec<(Vec<u8>, &'static str)> {
    let megabyte = json!({ "padding": "x".repeat(1_000_000) });
    vec![
        (b"".to_vec(), "EOF"),
        (b"this is not JSON".to_vec(), "expected"),
        (vec![0xff, 0x00, 0xfe], "expected"),
        (b"null".to_vec(), "invalid type"),
        (b"[1, 2, 3]".to_vec(), "invalid"),
        (br#"{"event": "something else"}"#.to_vec(), "missing field"),
        (
            without(1, "btc_rate").to_string().into(),
            "missing field `btc_rate`",
        ),
        (with(1, "id", json!("one")).to_string().into(), "invalid type"),
        (
            with(1, "external_id", json!("not-a-uuid")).to_string().into(),
            "UUID",
        ),
        (with(1, "created_at", json!("yesterday")).to_string().into(), ""),
        (
            with(1, "currency_iso3", json!("dollars")).to_string().into(),
            "ISO 4217",
        ),
        (
            with(1, "currency_amount", json!("-1.00")).to_string().into(),
            "not greater than 0",
        ),
        (
            with(1, "btc_rate", json!("0")).to_string().into(),
            "not greater than 0",
        ),
        (
            with(1, "btc_amount", json!("0.123456789")).to_string().into(),
            "too many decimals",
        ),
        (
            with(1, "btc_amount", json!("1000")).to_string().into(),
            "too large",
        ),
        (
            with(1, "btc_amount", json!("NaN")).to_string().into(),
            "not a plain decimal",
        ),
        (megabyte.to_string().into(), "the body has 1000014 bytes"),
    ]
}

#[tokio::test]
async fn garbage_goes_to_the_dead_letters_with_its_reason_while_its_neighbours_are_projected()
-> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let garbage = garbage();
    for (place, (body, _)) in garbage.iter().enumerate() {
        let neighbour = 100 + i64::try_from(place)?;
        broker.publish([&event(neighbour)]).await?;
        broker.publish_raw(body, &format!("garbage {place}")).await?;
    }

    rows_appear(&cluster, i64::try_from(garbage.len())?).await?;
    let letters = broker.dead_letters(u32::try_from(garbage.len())?).await?;
    for (place, (body, reason)) in garbage.iter().enumerate() {
        let letter = &letters[place];
        assert_eq!(letter.body, *body, "the body is kept");
        assert_eq!(letter.message_id(), format!("garbage {place}"));
        let given = letter.header("x-reason").unwrap_or_default();
        assert!(given.contains(reason), "{given:?} does not contain {reason:?}");
        assert!(letter.header("x-first-failed-at").is_some());
        assert_eq!(letter.header("traceparent").as_deref(), Some("00-a-b-01"));
        assert_eq!(
            letter.properties.delivery_mode(),
            &Some(2),
            "it survives a restart of the broker"
        );
    }
    logged(&cluster, "failed_to_sync_buy_order_read_model").await?;
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

#[tokio::test]
async fn an_id_far_beyond_the_newest_is_dead_lettered_alone_and_no_true_one_is() -> anyhow::Result<()> {
    /// As many orders as the book can hold.
    const BOOK: i64 = 10_000_000_000;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    // Into an empty read model, as while it is rebuilt: the newest order of all, then the oldest.
    broker.publish([&with(1, "id", json!(BOOK)), &event(2)]).await?;
    rows_appear(&cluster, 2).await?;
    broker.publish([&with(3, "id", json!(BOOK + 1))]).await?;
    rows_appear(&cluster, 3).await?;
    let (near, far) = (2 * BOOK + 1, 2 * BOOK + 2);
    broker
        .publish([
            &with(4, "id", json!(far)),
            &event(5),
            &with(6, "id", json!(i64::MAX - 1)),
        ])
        .await?;
    rows_appear(&cluster, 4).await?;
    broker.publish([&with(7, "id", json!(near))]).await?;
    rows_appear(&cluster, 5).await?;
    for (letter, (number, id)) in broker
        .dead_letters(2)
        .await?
        .iter()
        .zip([(4, far), (6, i64::MAX - 1)])
    {
        assert_eq!(letter.message_id(), external_id(number));
        assert_eq!(
            letter.header("x-reason"),
            Some(format!(
                "id {id} is more than 10000000000 beyond 10000000001, the newest order's"
            ))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_dead_lettered_alone() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    sqlx::query("ALTER TABLE buy_order_read_model ADD CONSTRAINT a_later_rule CHECK (client_id <> 13)")
        .execute(cluster.read_model())
        .await?;
    let events: Vec<Value> = (1..=50)
        .map(|id| {
            if id % 10 == 0 {
                with(id, "client_id", json!(13))
            } else {
                event(id)
            }
        })
        .collect();
    broker.publish(&events).await?;

    rows_appear(&cluster, 45).await?;
    let letters = broker.dead_letters(5).await?;
    for (letter, id) in letters.iter().zip([10, 20, 30, 40, 50]) {
        assert_eq!(letter.message_id(), external_id(id));
        assert!(
            letter
                .header("x-reason")
                .unwrap_or_default()
                .contains("a_later_rule")
        );
    }
    let accepted = events
        .iter()
        .filter(|event| event["client_id"] != 13)
        .map(row)
        .collect::<Vec<_>>();
    assert_eq!(rows(&cluster).await?, accepted);
    Ok(())
}

#[tokio::test]
async fn another_order_under_a_known_id_is_dead_lettered_and_the_row_stays() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1), &event(2)]).await?;
    rows_appear(&cluster, 2).await?;

    let other_content = with(1, "btc_amount", json!("0.99999999"));
    let other_id = with(3, "external_id", json!(external_id(2)));
    broker.publish([&other_content, &other_id, &event(4)]).await?;
    rows_appear(&cluster, 3).await?;
    let letters = broker.dead_letters(2).await?;
    let reasons: Vec<String> = letters
        .iter()
        .filter_map(|letter| letter.header("x-reason"))
        .collect();
    assert!(
        reasons[0].contains("order 1 is already there, with other content"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("already belongs to order 2"), "{reasons:?}");
    assert_eq!(
        rows(&cluster).await?,
        [row(&event(1)), row(&event(2)), row(&event(4))]
    );
    Ok(())
}

#[tokio::test]
async fn two_orders_under_one_new_id_in_one_batch_leave_one_row_and_one_dead_letter() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    // Both arrive while the service is frozen, so that they are in one batch.
    cluster.pause(Service::ReadModelSync)?;
    let other = with(1, "btc_amount", json!("0.99999999"));
    broker.publish([&event(1), &other, &event(1)]).await?;
    cluster.resume(Service::ReadModelSync)?;
    rows_appear(&cluster, 1).await?;
    let stored = rows(&cluster).await?;
    assert!(stored == [row(&event(1))] || stored == [row(&other)]);
    let refused = if stored == [row(&event(1))] { 1 } else { 2 };
    broker.dead_letters(refused).await?;
    Ok(())
}

#[tokio::test]
async fn values_that_no_order_can_have_are_dead_lettered_and_the_next_ones_are_applied() -> anyhow::Result<()>
{
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let small = event(1).to_string();
    let amount = format!("{:?}", event(1)["btc_amount"].as_str().unwrap_or_default());
    let poison: Vec<(String, &str)> = vec![
        (small.replace(&amount, "1e-2147483648"), "not a decimal number"),
        (
            with(2, "created_at", json!("9999-12-31T23:59:59-01:00")).to_string(),
            "years 1970 to 9999",
        ),
        (
            with(3, "created_at", json!("0000-01-01T00:00:00+01:00")).to_string(),
            "years 1970 to 9999",
        ),
        (with(0, "id", json!(0)).to_string(), "not an id"),
    ];
    for (place, (body, _)) in poison.iter().enumerate() {
        broker
            .publish_raw(body.as_bytes(), &format!("poison {place}"))
            .await?;
        broker.publish([&event(100 + i64::try_from(place)?)]).await?;
    }
    rows_appear(&cluster, i64::try_from(poison.len())?).await?;
    let letters = broker.dead_letters(u32::try_from(poison.len())?).await?;
    for (letter, (body, reason)) in letters.iter().zip(&poison) {
        assert_eq!(letter.body, body.as_bytes());
        let given = letter.header("x-reason").unwrap_or_default();
        assert!(given.contains(reason), "{given:?} does not contain {reason:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_is_applied_by_its_type_and_one_without_is_an_order() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish_typed(&event(1), "buy_order_created").await?;
    broker.publish_typed(&event(2), "something_else_happened").await?;
    // As the original sends it.
    broker.publish([&event(3)]).await?;
    rows_appear(&cluster, 2).await?;
    assert_eq!(rows(&cluster).await?, [row(&event(1)), row(&event(3))]);
    let letters = broker.dead_letters(1).await?;
    assert_eq!(letters[0].message_id(), external_id(2));
    let reason = letters[0].header("x-reason").unwrap_or_default();
    assert!(reason.contains("something_else_happened"), "{reason}");
    let kind = letters[0].properties.kind().as_ref().map(|kind| kind.as_str());
    assert_eq!(kind, Some("something_else_happened"), "it is kept");
    Ok(())
}
