//! Voids: in any order with their orders, repeated, and by two projectors at once.

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::broker::Broker;
use super::{
    LIMIT, event, external_id, last_lines, logged, projection, row, row_count, rows, rows_appear, void_event,
};

const VOIDED: &str = "buy_order_voided";

async fn publish_void(broker: &Broker, void: &Value) -> anyhow::Result<()> {
    broker.publish_typed(void, VOIDED).await
}

/// The stored voids: id, external id, reason, time.
async fn voids(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let stored: Vec<(i64, String, String, String)> = sqlx::query_as(
        r#"SELECT id, external_id::text, reason, to_char(voided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           FROM buy_order_void_read_model ORDER BY id"#,
    )
    .fetch_all(cluster.read_model())
    .await?;
    Ok(stored
        .into_iter()
        .map(|(id, external_id, reason, voided_at)| {
            json!({"id": id, "external_id": external_id, "reason": reason, "voided_at": voided_at})
        })
        .collect())
}

/// The ids of the orders that are marked with the time of their void.
async fn marked(cluster: &Cluster) -> anyhow::Result<Vec<i64>> {
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM buy_order_read_model AS o LEFT JOIN buy_order_void_read_model AS v USING (id, external_id)
         WHERE o.voided_at IS NOT NULL AND o.voided_at IS DISTINCT FROM v.voided_at",
    )
    .fetch_one(cluster.read_model())
    .await?;
    anyhow::ensure!(wrong == 0, "{wrong} orders have the time of no void of theirs");
    Ok(
        sqlx::query_scalar("SELECT id FROM buy_order_read_model WHERE voided_at IS NOT NULL ORDER BY id")
            .fetch_all(cluster.read_model())
            .await?,
    )
}

async fn become_marked(cluster: &Cluster, ids: &[i64]) -> anyhow::Result<()> {
    wait_until(&format!("the orders {ids:?} are marked"), LIMIT, async || {
        let found = marked(cluster).await?;
        anyhow::ensure!(found == ids, "{found:?} are; {}", last_lines(cluster));
        Ok(true)
    })
    .await
}

async fn voids_appear(cluster: &Cluster, expected: usize) -> anyhow::Result<()> {
    wait_until(
        &format!("{expected} voids in the read model"),
        LIMIT,
        async || {
            let found = voids(cluster).await?.len();
            anyhow::ensure!(found == expected, "{found} voids; {}", last_lines(cluster));
            Ok(true)
        },
    )
    .await
}

/// Stops the projector, and asserts that it has acknowledged every delivery and that none is a dead letter.
async fn everything_was_applied(cluster: &Cluster, broker: &Broker) -> anyhow::Result<()> {
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

async fn read_model(cluster: &Cluster, statements: impl Into<String>) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.into()))
        .execute(cluster.read_model())
        .await?;
    Ok(())
}

/// Takes the privilege to mark orders from the projector, or gives it back.
async fn let_mark(cluster: &Cluster, allowed: bool) -> anyhow::Result<()> {
    let environment = cluster.environment(Service::ReadModelSync)?;
    let role = environment["READ_MODEL_DB_USER"].as_str();
    let change = if allowed {
        format!("GRANT UPDATE (voided_at) ON buy_order_read_model TO {role}")
    } else {
        format!("REVOKE UPDATE (voided_at) ON buy_order_read_model FROM {role}")
    };
    read_model(cluster, change).await
}

#[tokio::test]
async fn a_void_after_its_order_marks_it_and_changes_nothing_else() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1), &event(2), &event(3)]).await?;
    rows_appear(&cluster, 3).await?;
    assert_eq!(marked(&cluster).await?, Vec::<i64>::new());
    publish_void(&broker, &void_event(2)).await?;
    become_marked(&cluster, &[2]).await?;
    assert_eq!(voids(&cluster).await?, [void_event(2)]);
    assert_eq!(rows(&cluster).await?, [1, 2, 3].map(|id| row(&event(id))));
    logged(&cluster, "buy_order_void_read_model_synced").await?;
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn a_void_before_its_order_waits_for_it() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    publish_void(&broker, &void_event(2)).await?;
    voids_appear(&cluster, 1).await?;
    assert_eq!(row_count(&cluster).await?, 0);
    broker.publish([&event(1), &event(2)]).await?;
    become_marked(&cluster, &[2]).await?;
    assert_eq!(row_count(&cluster).await?, 2);
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn an_order_and_its_void_in_one_batch_are_both_applied_in_either_order() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    // They arrive while the service is frozen, so that they are in one batch.
    cluster.pause(Service::ReadModelSync)?;
    publish_void(&broker, &void_event(1)).await?;
    broker.publish([&event(1), &event(2), &event(3)]).await?;
    publish_void(&broker, &void_event(3)).await?;
    cluster.resume(Service::ReadModelSync)?;
    become_marked(&cluster, &[1, 3]).await?;
    assert_eq!(rows(&cluster).await?, [1, 2, 3].map(|id| row(&event(id))));
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn a_repeated_void_is_stored_once() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    for _ in 0..2 {
        publish_void(&broker, &void_event(1)).await?;
    }
    voids_appear(&cluster, 1).await?;
    broker.publish([&event(1)]).await?;
    become_marked(&cluster, &[1]).await?;
    publish_void(&broker, &void_event(1)).await?;
    broker.publish([&event(1), &event(2)]).await?;
    rows_appear(&cluster, 2).await?;
    everything_was_applied(&cluster, &broker).await?;
    assert_eq!(voids(&cluster).await?, [void_event(1)]);
    assert_eq!(marked(&cluster).await?, [1]);
    Ok(())
}

#[tokio::test]
async fn a_void_with_other_content_is_a_dead_letter_and_the_first_one_stays() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1)]).await?;
    publish_void(&broker, &void_event(1)).await?;
    become_marked(&cluster, &[1]).await?;
    for (field, other) in [
        ("reason", json!("another")),
        ("voided_at", json!("2026-11-28T15:37:32.531850Z")),
        ("external_id", json!(external_id(9))),
    ] {
        let mut void = void_event(1);
        void[field] = other;
        publish_void(&broker, &void).await?;
        let letters = broker.dead_letters(1).await?;
        assert_eq!(
            letters[0].header("x-reason").as_deref(),
            Some("the void of order 1 is already there, with other content"),
            "{field}"
        );
        let kind = letters[0].properties.kind().as_ref().map(|kind| kind.as_str());
        assert_eq!(kind, Some(VOIDED), "it is kept");
    }
    assert_eq!(voids(&cluster).await?, [void_event(1)]);
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn a_void_of_another_order_that_had_the_id_does_not_mark_the_order() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let mut of_another = void_event(1);
    of_another["external_id"] = json!(external_id(9));
    broker.publish([&event(1)]).await?;
    publish_void(&broker, &of_another).await?;
    publish_void(&broker, &void_event(2)).await?;
    broker.publish([&event(2)]).await?;
    become_marked(&cluster, &[2]).await?;
    assert_eq!(voids(&cluster).await?, [of_another, void_event(2)]);
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn voids_that_cannot_be_are_dead_letters_alone() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    read_model(
        &cluster,
        "ALTER TABLE buy_order_void_read_model ADD CONSTRAINT a_later_rule CHECK (reason <> 'refused');
         ALTER TABLE buy_order_read_model ADD CONSTRAINT a_rule_of_marks CHECK (id <> 5 OR voided_at IS NULL)",
    )
    .await?;
    let changed = |id, field: &str, value: Value| {
        let mut void = void_event(id);
        void[field] = value;
        void
    };
    // In one batch.
    cluster.pause(Service::ReadModelSync)?;
    let events: Vec<Value> = (1..=5).map(event).collect();
    broker.publish(&events).await?;
    for void in [
        void_event(1),
        changed(2, "reason", json!("refused")),
        changed(3, "reason", json!("a\0b")),
        changed(4, "id", json!(10_000_000_006_i64)),
        void_event(5),
    ] {
        publish_void(&broker, &void).await?;
    }
    cluster.resume(Service::ReadModelSync)?;
    become_marked(&cluster, &[1]).await?;
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());
    let reasons: Vec<(String, String)> = broker
        .dead_letters(5)
        .await?
        .iter()
        .map(|letter| {
            (
                letter.message_id().to_owned(),
                letter.header("x-reason").unwrap_or_default(),
            )
        })
        .collect();
    // That order 5 cannot be marked concerns its order and its void.
    for (id, reason) in [
        (2, "a_later_rule"),
        (3, "not a reason of 1 to 500 characters"),
        (
            4,
            "id 10000000006 is more than 10000000000 beyond 5, the newest order's",
        ),
        (5, "a_rule_of_marks"),
    ] {
        let expected = if id == 5 { 2 } else { 1 };
        let found = reasons
            .iter()
            .filter(|(of, why)| *of == external_id(id) && why.contains(reason));
        assert_eq!(found.count(), expected, "{id} {reason}: {reasons:?}");
    }
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

/// Two projectors have written an order and its void, and neither has committed.
#[tokio::test]
async fn of_two_projectors_that_commit_an_order_and_its_void_at_once_one_marks_it() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    cluster.start_extra(Service::ReadModelSync).await?;
    // Each commit of an insert waits for a lock that this session has.
    read_model(
        &cluster,
        "CREATE FUNCTION wait_to_commit() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER waits_to_commit AFTER INSERT ON buy_order_read_model
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_to_commit();
         CREATE CONSTRAINT TRIGGER waits_to_commit AFTER INSERT ON buy_order_void_read_model
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_to_commit()",
    )
    .await?;
    let mut holder = PgConnection::connect_with(&cluster.addresses().read_model.options()).await?;
    for id in 1..=5 {
        sqlx::raw_sql("SELECT pg_advisory_lock(1)")
            .execute(&mut holder)
            .await?;
        // The queue hands them to its consumers in turn.
        broker.publish([&event(id)]).await?;
        publish_void(&broker, &void_event(id)).await?;
        wait_until("the commits of both wait", LIMIT, async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_locks
                 WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .fetch_one(cluster.read_model())
            .await?;
            anyhow::ensure!(waiting == 2, "{waiting} wait");
            Ok(true)
        })
        .await?;
        sqlx::raw_sql("SELECT pg_advisory_unlock(1)")
            .execute(&mut holder)
            .await?;
        become_marked(&cluster, &(1..=id).collect::<Vec<_>>()).await?;
    }
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_projector_that_dies_between_a_commit_and_the_mark_gets_the_message_again_and_marks()
-> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await?;
    let_mark(&cluster, false).await?;
    // Once the void is the last to come, once the order is.
    publish_void(&broker, &void_event(1)).await?;
    publish_void(&broker, &void_event(2)).await?;
    voids_appear(&cluster, 2).await?;
    broker.publish([&event(2)]).await?;
    logged(&cluster, "model_update_failed").await?;
    cluster.kill(Service::ReadModelSync).await?;
    assert_eq!(marked(&cluster).await?, Vec::<i64>::new());

    let_mark(&cluster, true).await?;
    cluster.start_service(Service::ReadModelSync).await?;
    become_marked(&cluster, &[1, 2]).await?;
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn a_mark_that_fails_is_tried_again_before_anything_is_acknowledged() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let_mark(&cluster, false).await?;
    publish_void(&broker, &void_event(1)).await?;
    broker.publish([&event(1)]).await?;
    logged(&cluster, "model_update_failed").await?;
    let_mark(&cluster, true).await?;
    become_marked(&cluster, &[1]).await?;
    // As applied, although they were written by an earlier attempt.
    logged(&cluster, "buy_order_void_read_model_synced").await?;
    logged(&cluster, "buy_order_read_model_synced").await?;
    everything_was_applied(&cluster, &broker).await
}

#[tokio::test]
async fn a_voided_order_leaves_the_pages() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::ReadModelSync, Service::FetchBuyOrders])).await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1), &event(2), &event(3)]).await?;
    publish_void(&broker, &void_event(2)).await?;
    become_marked(&cluster, &[2]).await?;
    for (query, shown) in [
        ("", vec![3, 1]),
        (&format!("?last_reference={}", external_id(2)), vec![1]),
    ] {
        let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders" + query;
        let page: Value = cluster
            .http()
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let rows = page["rows"].as_array().into_iter().flatten();
        let ids: Vec<&str> = rows.filter_map(|row| row["id"].as_str()).collect();
        assert_eq!(
            ids,
            shown.into_iter().map(external_id).collect::<Vec<_>>(),
            "{page}"
        );
    }
    Ok(())
}
