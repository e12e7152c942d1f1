//! `create_buy_order checksums | read_model_sync verify` names the differences between the models, and nothing else.

use std::time::Duration;

use cluster::{Cluster, Ended, Options, Service, wait_until};
use serde_json::Value;

use super::outbox::{everything_is_projected, place};

const RANGE: &str = "10";

async fn checksums(cluster: &Cluster) -> anyhow::Result<String> {
    let ended = cluster
        .admin(Service::CreateBuyOrder, &["checksums", "--range-size", RANGE], "")
        .await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    Ok(ended.stdout)
}

async fn verify_with(cluster: &Cluster, input: &str, wait: &str) -> anyhow::Result<Ended> {
    cluster
        .admin(Service::ReadModelSync, &["verify", "--wait", wait], input)
        .await
}

async fn verify(cluster: &Cluster) -> anyhow::Result<Ended> {
    verify_with(cluster, &checksums(cluster).await?, "0").await
}

/// A cluster with 25 projected orders, their ids, and a copy of the rows of the read model in another table.
async fn cluster_with_orders() -> anyhow::Result<(Cluster, Vec<i64>)> {
    let cluster = Cluster::start(Options::default()).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 25).await?;
    everything_is_projected(&cluster).await?;
    read_model(&cluster, "CREATE TABLE kept AS TABLE buy_order_read_model").await?;
    let ids = sqlx::query_scalar("SELECT id FROM buy_order ORDER BY id")
        .fetch_all(cluster.write_model())
        .await?;
    Ok((cluster, ids))
}

async fn read_model(cluster: &Cluster, statement: impl Into<String>) -> anyhow::Result<()> {
    sqlx::query(sqlx::AssertSqlSafe(statement.into()))
        .execute(cluster.read_model())
        .await?;
    Ok(())
}

/// The hint of `verify` when the read model has orders from this id on that the write model does not have.
fn way_to_mend(from_id: i64, last_id: i64) -> String {
    format!(
        "from id {from_id} on the read model has orders that the write model does not have: was that restored from an older backup? To mend it,
as docs/operations.md says under \"The write model was restored from an older backup\": stop create_buy_order, wait until the queue is
empty, keep what clients were told of, and start create_buy_order after the third line:
  scripts/psql.sh read_model \"SELECT * FROM buy_order_read_model WHERE id >= {from_id}\" >lost_orders.txt
  scripts/psql.sh write_model \"SELECT setval(pg_get_serial_sequence('buy_order', 'id'), greatest({last_id}, nextval(pg_get_serial_sequence('buy_order', 'id'))))\"
  scripts/psql.sh read_model \"DELETE FROM buy_order_read_model WHERE id >= {from_id}; DELETE FROM buy_order_void_read_model WHERE id >= {from_id}\"
  scripts/republish.sh --from-id {from_id} --to-id {last_id}
"
    )
}

async fn mend(cluster: &Cluster) -> anyhow::Result<()> {
    read_model(cluster, "TRUNCATE buy_order_read_model").await?;
    read_model(cluster, "INSERT INTO buy_order_read_model TABLE kept").await
}

#[tokio::test]
async fn equal_models_are_called_equal_and_exactly_the_range_that_differs_is_named() -> anyhow::Result<()> {
    let (cluster, ids) = cluster_with_orders().await?;
    let ended = verify(&cluster).await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "equal: 25 orders in 3 ranges\n")
    );

    let lines: Vec<Value> = checksums(&cluster)
        .await?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[0]["from_id"], &lines[0]["to_id"]),
        (&ids[0].into(), &ids[9].into())
    );
    assert_eq!(
        (&lines[2]["to_id"], &lines[2]["orders"]),
        (&ids[24].into(), &5.into())
    );

    let second = format!("ids {} to {}:", ids[9] + 1, ids[19]);
    read_model(
        &cluster,
        format!("DELETE FROM buy_order_read_model WHERE id = {}", ids[12]),
    )
    .await?;
    let ended = verify(&cluster).await?;
    assert_eq!(
        (ended.code, ended.stdout),
        (
            Some(1),
            format!(
                "{second} 10 orders in the write model, 9 in the read model\ndifferent: 1 of 3 ranges, and 0 rows outside of them\n"
            )
        )
    );

    for change in [
        "client_id = client_id + 1",
        "external_id = gen_random_uuid()",
        "created_at = created_at + interval '1 microsecond'",
        "currency_id = currency_id + 1",
        "currency_iso3 = 'XXX'",
        "currency_amount = currency_amount + 0.01",
        "btc_rate = btc_rate + 0.00000001",
        "btc_amount = btc_amount + 0.00000001",
    ] {
        mend(&cluster).await?;
        read_model(
            &cluster,
            format!("UPDATE buy_order_read_model SET {change} WHERE id = {}", ids[10]),
        )
        .await?;
        let ended = verify(&cluster).await?;
        let way = if change.starts_with("external_id") {
            way_to_mend(ids[9] + 1, ids[24])
        } else {
            String::new()
        };
        assert_eq!(
            (ended.code, ended.stdout),
            (
                Some(1),
                format!(
                    "{second} 10 orders in both models, but not the same in every field, or voided in only one\ndifferent: 1 of 3 ranges, and 0 rows outside of them\n{way}"
                )
            ),
            "{change}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_row_that_the_write_model_does_not_have_is_named_and_a_younger_order_is_not() -> anyhow::Result<()>
{
    let (cluster, ids) = cluster_with_orders().await?;
    let last = ids[24];
    let insert = "INSERT INTO buy_order_read_model
        SELECT id + 1000, gen_random_uuid(), client_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate, btc_amount
        FROM buy_order_read_model WHERE id =";
    read_model(&cluster, format!("{insert} {last}")).await?;
    let ended = verify(&cluster).await?;
    assert_eq!(
        (ended.code, ended.stdout),
        (
            Some(1),
            format!(
                "outside of all ranges: the read model has 1 rows that the write model does not have, ids {}\ndifferent: 0 of 3 ranges, and 1 rows outside of them\n{}",
                last + 1000,
                way_to_mend(last + 1, last + 1000)
            )
        )
    );

    mend(&cluster).await?;
    let before = checksums(&cluster).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 2).await?;
    everything_is_projected(&cluster).await?;
    let ended = verify_with(&cluster, &before, "0").await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (
            Some(0),
            "not compared: 2 rows younger than the checksums\nequal: 25 orders in 3 ranges\n"
        )
    );

    // An empty write model is no reason to trust the read model.
    let nothing = r#"{"ranges":0,"orders":0,"last_id":0,"as_of_epoch_us":9000000000000000}"#;
    let ended = verify_with(&cluster, nothing, "0").await?;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("has 27 rows"), "{ended:?}");
    Ok(())
}

/// Sets the write model back to a backup that was made when `last_id` was the last order.
async fn restore_older_backup(cluster: &Cluster, last_id: i64) -> anyhow::Result<()> {
    let statements = format!(
        "BEGIN;
         SET LOCAL session_replication_role = replica;
         DELETE FROM buy_order WHERE id > {last_id};
         UPDATE buy_order_running_total SET btc_amount = (SELECT sum(btc_amount) FROM buy_order);
         SELECT setval(pg_get_serial_sequence('buy_order', 'id'), {last_id});
         COMMIT"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(cluster.write_model())
        .await?;
    Ok(())
}

/// Does exactly what `verify` printed: its SQL, and `republish` with its arguments.
async fn mend_as_told(cluster: &Cluster, said: &str) -> anyhow::Result<()> {
    let create = Service::CreateBuyOrder;
    for line in said.lines().filter_map(|line| line.strip_prefix("  scripts/")) {
        if let Some(arguments) = line.strip_prefix("republish.sh ") {
            cluster.start_service(create).await?;
            let arguments: Vec<&str> = ["republish"].into_iter().chain(arguments.split(' ')).collect();
            let ended = cluster.admin(create, &arguments, "").await?;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            continue;
        }
        let sql = line.split('"').nth(1).unwrap_or_default().to_owned();
        let pool = if line.starts_with("psql.sh write_model") {
            cluster.write_model()
        } else {
            cluster.read_model()
        };
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_write_model_restored_from_an_older_backup_is_named_with_the_way_to_mend_it() -> anyhow::Result<()>
{
    let (cluster, ids) = cluster_with_orders().await?;
    let create = Service::CreateBuyOrder;
    let (kept, last) = (ids[19], ids[24]);
    cluster.stop(create).await?;
    restore_older_backup(&cluster, kept).await?;
    let ended = verify(&cluster).await?;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stdout
            .contains("has 5 rows that the write model does not have"),
        "{ended:?}"
    );
    assert!(ended.stdout.ends_with(&way_to_mend(kept + 1, last)), "{ended:?}");

    // Ids are drawn again before the repair: the new orders become dead letters.
    cluster.start_service(create).await?;
    place(&cluster, &[cluster.url(create)], 2).await?;
    let channel = crate::broker::channel(&cluster).await?;
    wait_until("both are dead letters", Duration::from_secs(60), async || {
        Ok(crate::broker::ready(&channel, "buy_order.dead_letter").await? == 2)
    })
    .await?;
    let ended = verify(&cluster).await?;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.ends_with(&way_to_mend(kept + 1, last)), "{ended:?}");

    cluster.stop(create).await?;
    mend_as_told(&cluster, &ended.stdout).await?;
    place(&cluster, &[cluster.url(create)], 1).await?;
    let newest: i64 = sqlx::query_scalar("SELECT max(id) FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    assert!(newest > last, "{newest} was drawn before, up to {last}");
    let redriven = cluster
        .admin(Service::ReadModelSync, &["dead-letters", "redrive", "--all"], "")
        .await?;
    assert_eq!(redriven.code, Some(0), "{redriven:?}");
    everything_is_projected(&cluster).await?;
    let input = checksums(&cluster).await?;
    let ended = verify_with(&cluster, &input, "60").await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "equal: 23 orders in 3 ranges\n")
    );
    wait_until("no dead letter is left", Duration::from_secs(60), async || {
        Ok(crate::broker::ready(&channel, "buy_order.dead_letter").await? == 0)
    })
    .await
}

#[tokio::test]
async fn orders_that_are_still_under_way_are_waited_for() -> anyhow::Result<()> {
    let (cluster, _) = cluster_with_orders().await?;
    cluster.pause(Service::ReadModelSync)?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 5).await?;
    let input = checksums(&cluster).await?;
    assert_eq!(verify_with(&cluster, &input, "0").await?.code, Some(1));
    let (ended, resumed) = tokio::join!(verify_with(&cluster, &input, "60"), async {
        wait_until("verify has asked", Duration::from_secs(30), async || {
            let asked: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE '%sha256%' AND pid <> pg_backend_pid()",
            )
            .fetch_one(cluster.read_model())
            .await?;
            Ok(asked > 0)
        })
        .await?;
        cluster.resume(Service::ReadModelSync)
    });
    resumed?;
    let ended = ended?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "equal: 30 orders in 3 ranges\n")
    );
    Ok(())
}

#[tokio::test]
async fn a_read_model_that_was_lost_and_republished_is_equal() -> anyhow::Result<()> {
    let (cluster, _) = cluster_with_orders().await?;
    read_model(&cluster, "TRUNCATE buy_order_read_model").await?;
    let ended = verify(&cluster).await?;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stdout
            .ends_with("different: 3 of 3 ranges, and 0 rows outside of them\n"),
        "{ended:?}"
    );

    let republished = cluster.admin(Service::CreateBuyOrder, &["republish"], "").await?;
    assert_eq!(republished.code, Some(0), "{republished:?}");
    let input = checksums(&cluster).await?;
    let ended = verify_with(&cluster, &input, "60").await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "equal: 25 orders in 3 ranges\n")
    );
    Ok(())
}

#[tokio::test]
async fn checksums_that_are_not_whole_are_no_proof() -> anyhow::Result<()> {
    let (cluster, _) = cluster_with_orders().await?;
    let whole = checksums(&cluster).await?;
    let lines: Vec<&str> = whole.lines().collect();
    for (input, why) in [
        (String::new(), "end too early, after 0 ranges"),
        (lines[..2].join("\n"), "end too early, after 2 ranges"),
        (
            [lines[0], lines[2], lines[3]].join("\n"),
            "does not follow the one before",
        ),
        (
            [lines[0], lines[1], lines[3]].join("\n"),
            "3 ranges, of which 2 came",
        ),
        (whole.repeat(2), "goes on after the end"),
        ("nonsense".to_owned(), "line 1 of standard input is not of"),
    ] {
        let ended = verify_with(&cluster, &input, "0").await?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    }
    Ok(())
}
