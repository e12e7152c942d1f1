//! Error responses.

use std::process::Command;
use std::time::{Duration, Instant};

use cluster::{Cluster, Options, Server, Service, wait_until};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{cluster, external_id, get, insert, page_after};

const LIMIT: Duration = Duration::from_secs(60);

/// Type, location and input of each item.
fn items(body: &Value) -> Vec<Value> {
    let items = body["detail"].as_array().into_iter().flatten();
    items
        .map(|item| json!([item["type"], item["loc"], item["input"]]))
        .collect()
}

#[tokio::test]
async fn a_page_size_that_is_no_integer_or_out_of_bounds_is_422() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    for (text, kind, ctx) in [
        ("x", "int_parsing", None),
        ("", "int_parsing", None),
        ("1.5", "int_parsing", None),
        ("0", "greater_than_equal", Some(json!({"ge": 1}))),
        ("-1", "greater_than_equal", Some(json!({"ge": 1}))),
        ("1001", "less_than_equal", Some(json!({"le": 1000}))),
        (
            "99999999999999999999",
            "less_than_equal",
            Some(json!({"le": 1000})),
        ),
    ] {
        let answer = get(&cluster, &format!("/buy_orders?page_size={text}")).await?;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{text:?}");
        assert_eq!(items(&answer.body), [json!([kind, ["query", "page_size"], text])]);
        assert_eq!(answer.body.pointer("/detail/0/ctx"), ctx.as_ref(), "{text:?}");
        assert!(
            answer.body.pointer("/detail/0/msg").is_some_and(Value::is_string),
            "{text:?}"
        );
        assert_eq!(answer.body.pointer("/detail/0/url"), None);
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_reference_is_422() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    for text in ["x", "", "3b14efb6-041f-4d31-b35a-37c82333af3", "7"] {
        let answer = get(&cluster, &format!("/buy_orders?last_reference={text}")).await?;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{text:?}");
        assert_eq!(
            items(&answer.body),
            [json!(["uuid_parsing", ["query", "last_reference"], text])]
        );
        assert!(
            answer
                .body
                .pointer("/detail/0/ctx/error")
                .is_some_and(Value::is_string),
            "{text:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_faulty_parameter_is_in_one_answer_in_the_order_of_the_fields() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let answer = get(&cluster, "/buy_orders?page_size=0&last_reference=x").await?;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let wanted = [
        json!(["uuid_parsing", ["query", "last_reference"], "x"]),
        json!(["greater_than_equal", ["query", "page_size"], "0"]),
    ];
    assert_eq!(items(&answer.body), wanted);
    Ok(())
}

#[tokio::test]
async fn an_unknown_reference_is_404() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    let answer = page_after(&cluster, 2, 10).await?;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.body, json!({"detail": "unknown last_reference"}));
    Ok(())
}

#[tokio::test]
async fn unknown_parameters_are_ignored_and_of_repeated_ones_the_last_counts() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    let answer = get(
        &cluster,
        "/buy_orders?colour=blue&page_size=x&page_size=2&%ff=%zz",
    )
    .await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.ids(), [external_id(3), external_id(2)]);
    Ok(())
}

#[tokio::test]
async fn while_the_read_model_is_away_pages_are_503_and_they_come_back_with_it() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders]).with_own_servers()).await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    assert_eq!(get(&cluster, "/buy_orders").await?.ids().len(), 3);
    // Test servers confirm a commit before it is on disk, and this test is not about data lost in a crash.
    sqlx::query("CHECKPOINT").execute(cluster.read_model()).await?;

    cluster.stop_server(Server::ReadModel).await?;
    let answer = get(&cluster, "/buy_orders").await?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(
        answer
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok()),
        "{answer:?}"
    );
    assert_eq!(
        answer.body,
        json!({"detail": "the orders cannot be read at the moment, try again shortly"})
    );
    assert_eq!(
        get(&cluster, "/healthcheck").await?.status,
        StatusCode::OK,
        "restarting the service would not help"
    );
    let faulty = get(&cluster, "/buy_orders?page_size=0").await?;
    assert_eq!(faulty.status, StatusCode::UNPROCESSABLE_ENTITY);

    cluster.start_server(Server::ReadModel).await?;
    wait_until("pages are served again", LIMIT, async || {
        let answer = get(&cluster, "/buy_orders").await?;
        Ok(answer.status == StatusCode::OK && answer.ids().len() == 3)
    })
    .await
}

#[tokio::test]
async fn while_the_read_model_is_frozen_pages_are_503_in_time() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders]).with_own_servers()).await?;
    assert_eq!(get(&cluster, "/buy_orders").await?.status, StatusCode::OK);
    let sessions: Vec<i32> =
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            .fetch_all(cluster.read_model())
            .await?;
    let signal = |name: &str| {
        let processes = sessions.iter().map(i32::to_string);
        Command::new("kill").arg(name).args(processes).status()
    };
    cluster.pause_server(Server::ReadModel)?;
    assert!(signal("-STOP")?.success());
    let begun = Instant::now();
    let answer = get(&cluster, "/buy_orders").await;
    let took = begun.elapsed();
    assert!(signal("-CONT")?.success());
    cluster.resume_server(Server::ReadModel)?;

    let answer = answer?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(took < Duration::from_secs(18), "took {took:?}");
    wait_until("pages are served again", LIMIT, async || {
        Ok(get(&cluster, "/buy_orders").await?.status == StatusCode::OK)
    })
    .await
}

#[tokio::test]
async fn a_fault_of_ours_is_500_with_the_reference_that_the_log_has() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    sqlx::query("ALTER TABLE buy_order_read_model RENAME TO elsewhere")
        .execute(cluster.read_model())
        .await?;
    let answer = get(&cluster, "/buy_orders").await?;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{answer:?}");
    let detail = answer
        .body
        .get("detail")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let reference =
        detail.strip_prefix("an error occurred.  please contact pydist support and quote reference ");
    let reference = reference
        .unwrap_or_else(|| panic!("no reference in: {detail}"))
        .to_owned();
    assert!(!answer.body.to_string().contains("elsewhere"));
    wait_until("the failure is logged", LIMIT, async || {
        let events = cluster.logs(Service::FetchBuyOrders);
        Ok(events.iter().any(|event| {
            event.get("event") == Some(&json!("request_failed"))
                && event.get("reference") == Some(&json!(reference))
                && event
                    .get("error")
                    .is_some_and(|error| error.to_string().contains("buy_order_read_model"))
        }))
    })
    .await
}
