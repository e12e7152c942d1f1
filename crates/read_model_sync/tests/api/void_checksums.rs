//! What `verify` says of voids.

use cluster::{Cluster, Ended, Service, wait_until};
use read_model_sync::db;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::broker::Broker;
use super::{LIMIT, event, external_id, projection, rows_appear, void_event};

/// The line of an order, of which the checksum is made.
const LINE: &str = "1|1|3b14efb6-041f-4d31-b35a-000000000001|1795446001000001|2|GBP|1.45|48479.88|0.00254648";

/// What its void adds.
const VOID: &str = "|void|fat finger 1|1795878001000001";
const VOIDED_AT: i64 = 1_795_878_001_000_001;

async fn execute(cluster: &Cluster, statement: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(cluster.read_model())
        .await?;
    Ok(())
}

async fn sha256(cluster: &Cluster, text: &str) -> anyhow::Result<String> {
    Ok(
        sqlx::query_scalar("SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')")
            .bind(text)
            .fetch_one(cluster.read_model())
            .await?,
    )
}

async fn checksum(cluster: &Cluster) -> anyhow::Result<String> {
    let mut connection = cluster.read_model().acquire().await?;
    Ok(db::checksum(&mut connection, 1, 1, VOIDED_AT).await?.checksum)
}

/// `verify` against a write model that has order 1 as this line.
async fn verify(cluster: &Cluster, line: &str) -> anyhow::Result<Ended> {
    verify_at(cluster, line, VOIDED_AT).await
}

/// `verify` with checksums that were made at this time.
async fn verify_at(cluster: &Cluster, line: &str, epoch_us: i64) -> anyhow::Result<Ended> {
    let identity = format!("1|{}", external_id(1));
    let range = json!({
        "from_id": 1, "to_id": 1, "orders": 1, "checksum": sha256(cluster, line).await?, "identities": sha256(cluster, &identity).await?,
        "voids_to_epoch_us": epoch_us,
    });
    let end = json!({"ranges": 1, "orders": 1, "last_id": 1, "as_of_epoch_us": 0});
    let input = format!("{range}\n{end}\n");
    cluster
        .admin(Service::ReadModelSync, &["verify", "--wait", "0"], &input)
        .await
}

const DIFFERENT: &str =
    "ids 1 to 1: 1 orders in both models, but not the same in every field, or voided in only one
different: 1 of 1 ranges, and 0 rows outside of them
";
const EQUAL: &str = "equal: 1 orders in 1 ranges\n";

#[tokio::test]
async fn a_void_that_is_missing_or_differs_is_a_difference_and_is_none_after_it_was_projected()
-> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    broker.publish([&event(1)]).await?;
    rows_appear(&cluster, 1).await?;
    assert_eq!(
        checksum(&cluster).await?,
        sha256(&cluster, LINE).await?,
        "as before there were voids"
    );
    let voided = format!("{LINE}{VOID}");
    let ended = verify(&cluster, &voided).await?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), DIFFERENT));

    broker.publish_typed(&void_event(1), "buy_order_voided").await?;
    wait_until("it is voided", LIMIT, async || {
        Ok(verify(&cluster, &voided).await?.code == Some(0))
    })
    .await?;
    assert_eq!(verify(&cluster, &voided).await?.stdout, EQUAL);
    let ended = verify(&cluster, LINE).await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), DIFFERENT),
        "voided in the read model only"
    );
    assert_eq!(
        verify_at(&cluster, LINE, VOIDED_AT - 1).await?.stdout,
        EQUAL,
        "the void is younger than the checksums"
    );

    for (change, undo) in [
        (
            "UPDATE buy_order_void_read_model SET reason = 'another'",
            "UPDATE buy_order_void_read_model SET reason = 'fat finger 1'",
        ),
        (
            "UPDATE buy_order_read_model SET voided_at = voided_at + interval '1 microsecond'",
            "UPDATE buy_order_read_model SET voided_at = voided_at - interval '1 microsecond'",
        ),
        (
            "CREATE TABLE kept AS TABLE buy_order_void_read_model; DELETE FROM buy_order_void_read_model",
            "INSERT INTO buy_order_void_read_model TABLE kept",
        ),
        (
            "UPDATE buy_order_read_model SET voided_at = NULL",
            "UPDATE buy_order_read_model AS o SET voided_at = v.voided_at FROM buy_order_void_read_model AS v",
        ),
    ] {
        execute(&cluster, change).await?;
        let ended = verify(&cluster, &voided).await?;
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(1), DIFFERENT),
            "{change}"
        );
        execute(&cluster, undo).await?;
        assert_eq!(verify(&cluster, &voided).await?.stdout, EQUAL, "{undo}");
    }
    Ok(())
}
