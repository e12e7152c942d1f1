//! `create_buy_order void`: an operator takes an order out of the book.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Ended, Options, Service, wait_until};
use serde_json::{Value, json};

use super::{Answer, book, buy, metrics, new_key, start_cluster, start_cluster_with_quotes_for};

const LIMIT: Duration = Duration::from_secs(60);

const UNKNOWN: &str = "3b14efb6-041f-4d31-b35a-37c82333af36";

pub(super) async fn void(cluster: &Cluster, order: &Answer, reason: &str) -> anyhow::Result<Ended> {
    cluster.void(order.order("id"), reason).await
}

#[tokio::test]
async fn a_full_book_has_room_again_after_its_largest_order_was_voided() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    cluster.prices().set_rate("USD", "1.00");
    let small = buy(&cluster, "USD", "1", &new_key()).await?;
    let large = buy(&cluster, "USD", "99", &new_key()).await?;
    assert_eq!(buy(&cluster, "USD", "0.01", &new_key()).await?.status, 409);

    let ended = void(&cluster, &large, "  entered by mistake ").await?;
    let id = large.order("id");
    assert_eq!(
        (ended.code, ended.stdout),
        (
            Some(0),
            format!("order {id} (id 2) is voided: entered by mistake\n")
        )
    );
    let event: Value = serde_json::from_str(
        ended
            .stderr
            .lines()
            .find(|line| line.contains("buy_order_voided"))
            .unwrap_or_default(),
    )?;
    assert_eq!(
        (&event["id"], &event["external_id"], &event["reason"]),
        (&json!(2), &json!(id), &json!("entered by mistake"))
    );
    assert_eq!(book(&cluster).await?, (2, 1.into()));
    assert_eq!(buy(&cluster, "USD", "99", &new_key()).await?.status, 200);
    assert_eq!(book(&cluster).await?, (3, 100.into()));
    assert_eq!(small.status, 200);
    Ok(())
}

/// With a quote at hand the write model decides, and without one the request is looked up.
#[tokio::test]
async fn a_repeat_of_a_voided_order_is_refused_with_its_reason() -> anyhow::Result<()> {
    for quotes_for in ["60", "0.000001"] {
        let cluster = start_cluster_with_quotes_for(quotes_for).await?;
        let (key, other_key) = (new_key(), new_key());
        let order = buy(&cluster, "USD", "10", &key).await?;
        let other = buy(&cluster, "USD", "10", &other_key).await?;
        assert_eq!(
            void(&cluster, &order, "the client asked for it").await?.code,
            Some(0)
        );
        for amount in ["10", "10.00"] {
            let repeat = buy(&cluster, "USD", amount, &key).await?;
            let detail = format!(
                "the order {} was voided: the client asked for it",
                order.order("id")
            );
            assert_eq!(
                (repeat.status, repeat.replayed, repeat.body),
                (409, false, json!({ "detail": detail })),
                "{quotes_for}"
            );
        }
        // Another key is another order, and other orders are still repeated.
        assert_eq!(buy(&cluster, "USD", "10", &new_key()).await?.status, 200);
        assert_eq!(buy(&cluster, "USD", "10", &other_key).await?.body, other.body);
        assert_eq!(super::count(&cluster, "buy_order").await?, 3);
        let shown = metrics(&cluster.http(), &cluster.url(Service::CreateBuyOrder)).await?;
        let counted = "buy_orders_refused_total{reason=\"voided\"} 2".to_owned();
        assert!(shown.contains(&counted), "{shown:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_order_is_voided_once_and_the_first_reason_stays() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let order = buy(&cluster, "USD", "10", &new_key()).await?;
    let [first, second] = [
        void(&cluster, &order, "one").await?,
        void(&cluster, &order, "two").await?,
    ];
    assert!(first.stdout.ends_with("is voided: one\n"), "{first:?}");
    assert_eq!(second.code, Some(0));
    let id = order.order("id");
    let before = format!("order {id} (id 1) was voided before, at ");
    assert!(
        second.stdout.starts_with(&before) && second.stdout.ends_with("Z: one\n"),
        "{second:?}"
    );
    assert!(!second.stderr.contains("buy_order_voided"), "{second:?}");
    assert_eq!(super::count(&cluster, "buy_order_void").await?, 1);
    assert_eq!(book(&cluster).await?, (1, 0.into()));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_voided_is_said_and_changes_nothing() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let order = buy(&cluster, "USD", "10", &new_key()).await?;
    let unknown = cluster.void(UNKNOWN, "not there").await?;
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown
            .stderr
            .starts_with(&format!("create_buy_order: no order has the id {UNKNOWN}\n")),
        "{unknown:?}"
    );

    // The service's own login.
    let arguments = ["void", "--id", order.order("id"), "--reason", "not allowed"];
    let refused = cluster.admin(Service::CreateBuyOrder, &arguments, "").await?;
    assert_eq!(refused.code, Some(1));
    let said = "create_buy_order: create_buy_order may not void orders: scripts/void.sh logs in as BUY_ORDER_VOIDER_DB_USER, who may\n";
    assert!(refused.stderr.starts_with(said), "{refused:?}");

    let blank = void(&cluster, &order, " ").await?;
    assert_eq!(blank.code, Some(2), "{blank:?}");
    assert_eq!(super::count(&cluster, "buy_order_void").await?, 0);
    Ok(())
}

/// The ids of the orders on the first page, newest first.
async fn page(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders?page_size=1000";
    let page: Value = cluster.http().get(url).send().await?.json().await?;
    let rows = page["rows"].as_array().context("no page")?;
    Ok(rows
        .iter()
        .map(|row| row["id"].as_str().unwrap_or_default().to_owned())
        .collect())
}

async fn shown(cluster: &Cluster, wanted: &[&str]) -> anyhow::Result<()> {
    wait_until("the page shows these orders", LIMIT, async || {
        Ok(page(cluster).await? == wanted)
    })
    .await
}

async fn verify(cluster: &Cluster) -> anyhow::Result<Ended> {
    let checksums = cluster
        .admin(Service::CreateBuyOrder, &["checksums", "--range-size", "2"], "")
        .await?;
    cluster
        .admin(
            Service::ReadModelSync,
            &["verify", "--wait", "0"],
            &checksums.stdout,
        )
        .await
}

async fn read_model(cluster: &Cluster, statement: &'static str) -> anyhow::Result<()> {
    sqlx::raw_sql(statement).execute(cluster.read_model()).await?;
    Ok(())
}

#[tokio::test]
async fn a_voided_order_leaves_the_pages_and_both_models_agree_on_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(buy(&cluster, "USD", "10", &new_key()).await?);
    }
    let [first, second, third] = [0, 1, 2].map(|place: usize| orders[place].order("id"));
    shown(&cluster, &[third, second, first]).await?;
    assert_eq!(
        void(&cluster, &orders[1], "a \"mistake\" of ours").await?.code,
        Some(0)
    );
    shown(&cluster, &[third, first]).await?;
    assert_eq!(verify(&cluster).await?.stdout, "equal: 3 orders in 2 ranges\n");

    // A void that was lost with the read model's rows.
    read_model(
        &cluster,
        "UPDATE buy_order_read_model SET voided_at = NULL; TRUNCATE buy_order_void_read_model",
    )
    .await?;
    let ended = verify(&cluster).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("ids 1 to 2: 2 orders in both models"),
        "{ended:?}"
    );
    let ended = cluster
        .admin(Service::CreateBuyOrder, &["republish", "--from-id", "2"], "")
        .await?;
    assert_eq!(
        ended.stdout,
        "2 orders, ids 2 to 3, and 1 voids are in the queue again\n"
    );
    shown(&cluster, &[third, first]).await?;
    assert_eq!(verify(&cluster).await?.code, Some(0));

    // All of it was lost.
    read_model(
        &cluster,
        "TRUNCATE buy_order_read_model, buy_order_void_read_model",
    )
    .await?;
    let ended = cluster.admin(Service::CreateBuyOrder, &["republish"], "").await?;
    assert_eq!(
        ended.stdout,
        "3 orders, ids 1 to 3, and 1 voids are in the queue again\n"
    );
    shown(&cluster, &[third, first]).await?;
    assert_eq!(verify(&cluster).await?.stdout, "equal: 3 orders in 2 ranges\n");
    Ok(())
}

/// After a read model was restored from a backup: what came since is missing, also voids of orders that it has.
#[tokio::test]
async fn voids_since_a_time_are_sent_again_whatever_the_age_of_their_orders() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let old = buy(&cluster, "USD", "10", &new_key()).await?;
    let since: String = sqlx::query_scalar(
        r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#,
    )
    .fetch_one(cluster.write_model())
    .await?;
    // Before the order arrives, the page is as empty as after its void.
    shown(&cluster, &[old.order("id")]).await?;
    assert_eq!(void(&cluster, &old, "a mistake").await?.code, Some(0));
    shown(&cluster, &[]).await?;
    read_model(
        &cluster,
        "UPDATE buy_order_read_model SET voided_at = NULL; TRUNCATE buy_order_void_read_model",
    )
    .await?;
    shown(&cluster, &[old.order("id")]).await?;

    let ended = cluster
        .admin(Service::CreateBuyOrder, &["republish", "--since", &since], "")
        .await?;
    assert_eq!(ended.stdout, "0 orders and 1 voids are in the queue again\n");
    shown(&cluster, &[]).await?;
    let new = buy(&cluster, "USD", "10", &new_key()).await?;
    let ended = cluster
        .admin(Service::CreateBuyOrder, &["republish", "--since", &since], "")
        .await?;
    assert_eq!(
        ended.stdout,
        "1 orders, ids 2 to 2, and 1 voids are in the queue again\n"
    );
    shown(&cluster, &[new.order("id")]).await?;
    assert_eq!(verify(&cluster).await?.code, Some(0));
    Ok(())
}

/// A void that comes while `verify` works is in neither checksum.
#[tokio::test]
async fn a_void_after_the_checksums_is_no_difference() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let order = buy(&cluster, "USD", "10", &new_key()).await?;
    shown(&cluster, &[order.order("id")]).await?;
    let checksums = cluster.admin(Service::CreateBuyOrder, &["checksums"], "").await?;
    assert_eq!(void(&cluster, &order, "a mistake").await?.code, Some(0));
    shown(&cluster, &[]).await?;
    let ended = cluster
        .admin(
            Service::ReadModelSync,
            &["verify", "--wait", "0"],
            &checksums.stdout,
        )
        .await?;
    assert_eq!(ended.stdout, "equal: 1 orders in 1 ranges\n");
    Ok(())
}

/// The void and its room are there or not, both of them.
#[tokio::test]
async fn a_void_whose_process_was_killed_can_be_repeated() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    // From before its statement to after its end.
    for lifetime_ms in (0..40).step_by(2) {
        let order = buy(&cluster, "USD", "10", &new_key()).await?;
        let mut command = cluster.void_command(order.order("id"), "killed")?;
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        tokio::time::sleep(Duration::from_millis(lifetime_ms)).await;
        process.kill()?;
        process.wait()?;
        let ended = void(&cluster, &order, "killed").await?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!(book(&cluster).await?, (20, 0.into()));
    assert_eq!(super::count(&cluster, "buy_order_void").await?, 20);
    Ok(())
}
