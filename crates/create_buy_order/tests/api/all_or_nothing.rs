//! Order, total and message are written together or not at all.

use std::time::Duration;

use cluster::{Service, lock_running_total, wait_until};
use rust_decimal::Decimal;

use super::{book, buy, count, new_key, start_cluster};

const NOTHING: (i64, Decimal) = (0, Decimal::ZERO);

const MESSAGES_FAIL: &str = "
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''out of order''; END';
    CREATE TRIGGER messages_fail BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION fail()";

#[tokio::test]
async fn an_order_whose_message_cannot_be_written_is_500_with_a_reference_and_leaves_nothing_behind()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    sqlx::raw_sql(MESSAGES_FAIL)
        .execute(cluster.write_model())
        .await?;
    let key = new_key();
    let failed = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!(failed.status, 500, "{failed:?}");
    let detail = failed.body["detail"].as_str().unwrap_or_default();
    let reference = detail
        .strip_prefix("an error occurred.  please contact pydist support and quote reference ")
        .unwrap_or_default();
    assert!(uuid::Uuid::parse_str(reference).is_ok(), "{detail}");
    wait_until(
        "the log has the reference and the cause",
        Duration::from_secs(30),
        async || {
            let logs = cluster.logs(Service::CreateBuyOrder);
            Ok(logs.iter().any(|line| {
                line["event"] == "request_failed"
                    && line["reference"] == reference
                    && line["error"].to_string().contains("out of order")
            }))
        },
    )
    .await?;
    assert_eq!(book(&cluster).await?, NOTHING);

    sqlx::raw_sql("DROP TRIGGER messages_fail ON outbox")
        .execute(cluster.write_model())
        .await?;
    let accepted = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!((accepted.status, accepted.replayed), (200, false));
    let btc_amount: Decimal = accepted.order("btc_amount").parse()?;
    assert_eq!(book(&cluster).await?, (1, btc_amount));
    Ok(())
}

#[tokio::test]
async fn an_order_that_waits_too_long_for_its_turn_is_503_and_the_same_key_makes_one_order_later()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let lock = lock_running_total(cluster.write_model()).await?;
    let key = new_key();
    let refused = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!(
        (refused.status, refused.retry_after.is_some()),
        (503, true),
        "{refused:?}"
    );
    assert_eq!(book(&cluster).await?, NOTHING);
    assert_eq!(count(&cluster, "outbox").await?, 0);

    lock.rollback().await?;
    let accepted = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!((accepted.status, accepted.replayed), (200, false));
    let repeat = buy(&cluster, "USD", "10", &key).await?;
    assert_eq!((repeat.replayed, &repeat.body), (true, &accepted.body));
    let btc_amount: Decimal = accepted.order("btc_amount").parse()?;
    assert_eq!(book(&cluster).await?, (1, btc_amount));
    Ok(())
}
