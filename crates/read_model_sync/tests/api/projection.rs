use cluster::Service;
use serde_json::{Value, json};

use super::broker::Broker;
use super::{event, external_id, logged, projection, row, row_count, rows, rows_appear};

#[tokio::test]
async fn an_event_becomes_a_row_with_every_digit_and_is_reported() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await?;
    assert_eq!(rows(&cluster).await?, [row(&event(1))]);
    logged(&cluster, "buy_order_read_model_synced").await?;
    logged(&cluster, "queue_listener_starting_consumption").await?;
    let health = cluster
        .http()
        .get(cluster.url(Service::ReadModelSync) + "/healthcheck")
        .send()
        .await?;
    assert_eq!(health.status(), 200);
    assert_eq!(health.text().await?, "null");
    Ok(())
}

#[tokio::test]
async fn the_same_message_three_times_makes_one_row() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let repeated = event(7);
    // The first two may or may not be in one batch; the last one certainly comes later.
    broker.publish([&repeated, &repeated]).await?;
    rows_appear(&cluster, 1).await?;
    broker.publish([&repeated, &event(8)]).await?;
    rows_appear(&cluster, 2).await?;

    assert_eq!(rows(&cluster).await?, [row(&repeated), row(&event(8))]);
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_thousand_events_in_any_order_with_repeats_become_a_thousand_rows() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let in_order: Vec<Value> = (1..=1000).map(event).collect();
    // 1009 is a prime, so its multiples visit every event in a scattered order; every third event is sent twice.
    let mut shuffled: Vec<&Value> = (0..1000).map(|place| &in_order[place * 1009 % 1000]).collect();
    shuffled.extend(in_order.iter().step_by(3));
    shuffled.rotate_left(500);

    broker.publish(shuffled).await?;
    rows_appear(&cluster, 1000).await?;
    assert_eq!(
        rows(&cluster).await?,
        in_order.iter().map(row).collect::<Vec<_>>()
    );
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_originals_message_with_decimals_as_json_numbers_is_projected_exactly() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    // A float has 15 to 17 digits: the rate needs 20.
    let body = format!(
        r#"{{"id": 1, "external_id": "{}", "client_id": 1, "created_at": "2026-11-23T15:37:32.531853+00:00", "currency_id": 1,
            "currency_iso3": "USD", "currency_amount": 999999999.99, "btc_rate": 999999999999.99999999, "btc_amount": 1e-08,
            "a_field_of_a_later_version": {{"nested": [1, 2]}}}}"#,
        external_id(1)
    );
    broker.publish_raw(body.as_bytes(), &external_id(1)).await?;
    rows_appear(&cluster, 1).await?;
    let expected = json!({
        "id": 1, "client_id": 1, "external_id": external_id(1), "created_at": "2026-11-23T15:37:32.531853Z", "currency_id": 1,
        "currency_iso3": "USD", "currency_amount": "999999999.99", "btc_rate": "999999999999.99999999", "btc_amount": "0.00000001",
    });
    assert_eq!(rows(&cluster).await?, [row(&expected)]);
    Ok(())
}

#[tokio::test]
async fn two_projectors_share_the_queue_and_make_each_row_once() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    cluster.start_extra(Service::ReadModelSync).await?;
    let events: Vec<Value> = (1..=3000).map(event).collect();
    broker.publish(events.iter().chain(&events[..500])).await?;
    rows_appear(&cluster, 3000).await?;
    assert_eq!(row_count(&cluster).await?, 3000);
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_repeat_after_a_column_was_added_is_recognised_at_once() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await?;
    // A repeat, so that the statement that compares is prepared.
    broker.publish([&event(1), &event(2)]).await?;
    rows_appear(&cluster, 2).await?;
    sqlx::raw_sql("ALTER TABLE buy_order_read_model ADD COLUMN note text")
        .execute(cluster.read_model())
        .await?;
    broker.publish([&event(1), &event(3)]).await?;
    rows_appear(&cluster, 3).await?;
    cluster.stop(Service::ReadModelSync).await?;
    let failures: Vec<Value> = cluster
        .logs(Service::ReadModelSync)
        .into_iter()
        .filter(|event| event["event"] == "model_update_failed")
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}
