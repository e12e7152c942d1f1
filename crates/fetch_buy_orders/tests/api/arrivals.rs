//! `Order-Position`: a page that waits for an order.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Link, Options, Server, Service, Traffic, wait_until};
use futures_util::future::join_all;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

use crate::support::{Answer, cluster, external_id, get, get_with, insert};

const LIMIT: Duration = Duration::from_secs(60);

const NOT_YET: &str = "the order of Order-Position is not on the pages yet, try again shortly";
const TOO_MANY: &str = "too many requests wait for an order at the moment, try again shortly";
const AWAY: &str = "the orders cannot be read at the moment, try again shortly";

/// A page with the position of the order with this id.
async fn page_with(cluster: &Cluster, id: i64) -> anyhow::Result<Answer> {
    let position = HeaderValue::from_str(&external_id(id))?;
    get_with(cluster, "/buy_orders", positions([position])).await
}

fn positions(values: impl IntoIterator<Item = HeaderValue>) -> HeaderMap {
    let name = reqwest::header::HeaderName::from_static("order-position");
    values.into_iter().map(|value| (name.clone(), value)).collect()
}

/// A `503` that says when to try again.
fn assert_unavailable(answer: &Answer, detail: &str) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    assert_eq!(answer.body, json!({"detail": detail}));
}

/// The value of the only series of the service that begins so.
async fn metric(cluster: &Cluster, beginning: &str) -> anyhow::Result<u64> {
    let url = cluster.url(Service::FetchBuyOrders) + "/metrics";
    let shown = cluster.http().get(url).send().await?.text().await?;
    let series: Vec<&str> = shown.lines().filter(|line| line.starts_with(beginning)).collect();
    let [series] = series.as_slice() else {
        anyhow::bail!("not one series begins with {beginning}: {series:?}")
    };
    let (_, value) = series.rsplit_once(' ').context("a series without a value")?;
    Ok(value.parse()?)
}

/// How many statements the service has sent, with those that failed.
async fn statements(cluster: &Cluster) -> anyhow::Result<u64> {
    metric(cluster, "database_pool_acquire_duration_seconds_count{").await
}

/// How many requests have waited, with this outcome.
async fn waits(cluster: &Cluster, outcome: &str) -> anyhow::Result<u64> {
    let series = format!("order_position_wait_seconds_count{{outcome=\"{outcome}\"}}");
    metric(cluster, &series).await
}

/// Waits until so many requests have no answer yet.
async fn in_flight(cluster: &Cluster, requests: u64) -> anyhow::Result<()> {
    wait_until("the requests are in flight", LIMIT, async || {
        // The one that asks is in flight, too.
        let found = metric(cluster, "http_requests_in_flight ").await? - 1;
        ensure!(found >= requests, "{found} are");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn a_page_waits_for_the_order_of_its_position() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    let arrives = async {
        in_flight(&cluster, 1).await?;
        insert(cluster.read_model(), 1, 2..=2).await
    };
    let (answer, ()) = tokio::try_join!(page_with(&cluster, 2), arrives)?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.ids(), [external_id(2), external_id(1)]);
    assert_eq!(waits(&cluster, "projected").await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_order_that_was_voided_is_not_waited_for() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=2).await?;
    sqlx::query("UPDATE buy_order_read_model SET voided_at = now() WHERE id = 2")
        .execute(cluster.read_model())
        .await?;
    let answer = page_with(&cluster, 2).await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.ids(), [external_id(1)]);
    Ok(())
}

#[tokio::test]
async fn an_order_that_does_not_come_is_503_after_2_s() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let begun = Instant::now();
    let answer = page_with(&cluster, 1).await?;
    let took = begun.elapsed();
    assert_unavailable(&answer, NOT_YET);
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(5)).contains(&took),
        "took {took:?}"
    );
    assert_eq!(waits(&cluster, "not_projected").await?, 1);
    insert(cluster.read_model(), 1, 1..=1).await?;
    assert_eq!(page_with(&cluster, 1).await?.ids(), [external_id(1)]);
    Ok(())
}

#[tokio::test]
async fn another_clients_order_cannot_be_told_from_one_that_does_not_exist() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 2, 1..=1).await?;
    let (others, unknown) = tokio::try_join!(page_with(&cluster, 1), page_with(&cluster, 2))?;
    assert_unavailable(&others, NOT_YET);
    assert_unavailable(&unknown, NOT_YET);
    Ok(())
}

#[tokio::test]
async fn a_faulty_position_is_422_with_all_other_faults() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    let (first, second) = (external_id(1), external_id(2));
    let both = format!("{first}, {second}");
    let same_twice = format!("{first}, {first}");
    for (lines, input) in [
        (vec!["".as_bytes()], ""),
        (vec![b"x"], "x"),
        (vec![b"7"], "7"),
        (vec![b"caf\xe9"], "caf\u{e9}"),
        (vec![&first.as_bytes()[1..]], &first[1..]),
        (vec![first.as_bytes(), second.as_bytes()], &both),
        (vec![first.as_bytes(), first.as_bytes()], &same_twice),
        (vec![both.as_bytes()], &both),
    ] {
        let values = lines.into_iter().map(HeaderValue::from_bytes);
        let headers = positions(values.collect::<Result<Vec<_>, _>>()?);
        let answer = get_with(&cluster, "/buy_orders?page_size=0", headers).await?;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{input:?}");
        assert_eq!(answer.body["detail"][0]["loc"], json!(["query", "page_size"]));
        let mut item = answer.body["detail"][1].clone();
        assert!(item["msg"].take().is_string(), "{answer:?}");
        assert!(item["ctx"]["error"].take().is_string(), "{answer:?}");
        let wanted = json!({
            "type": "uuid_parsing", "loc": ["header", "order-position"], "msg": null, "input": input, "ctx": {"error": null}
        });
        assert_eq!(item, wanted);
        assert_eq!(
            answer.body["detail"].as_array().map(Vec::len),
            Some(2),
            "{answer:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn without_a_position_no_order_is_looked_up() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    // The first statement makes their number known.
    get(&cluster, "/buy_orders").await?;
    let before = statements(&cluster).await?;
    for _ in 0..5 {
        assert_eq!(get(&cluster, "/buy_orders").await?.status, StatusCode::OK);
    }
    // One statement for each page.
    assert_eq!(statements(&cluster).await? - before, 5);
    for outcome in ["projected", "not_projected", "too_many", "not_read"] {
        assert_eq!(waits(&cluster, outcome).await?, 0, "{outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn many_that_wait_share_their_statements_and_delay_nobody_else() -> anyhow::Result<()> {
    const WAITING: u32 = 400;
    let cluster = cluster().await?;
    // The first statement makes their number known.
    get(&cluster, "/buy_orders").await?;
    let before = statements(&cluster).await?;
    let wait = join_all((0..WAITING).map(|id| page_with(&cluster, id.into())));
    let others = async {
        in_flight(&cluster, WAITING.into()).await?;
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(get(&cluster, "/buy_orders").await?.status, StatusCode::OK);
        }
        anyhow::Ok(begun.elapsed())
    };
    let (answers, others) = tokio::join!(wait, others);
    for answer in answers {
        assert_unavailable(&answer?, NOT_YET);
    }
    assert!(others? < Duration::from_secs(2), "twenty pages took too long");
    // Each of them has looked more than ten times, and all together at most once in a few milliseconds.
    let sent = statements(&cluster).await? - before;
    assert!(sent < u64::from(WAITING) * 3, "{sent} statements");
    Ok(())
}

#[tokio::test]
async fn one_too_many_that_would_wait_is_503_at_once_and_others_are_served() -> anyhow::Result<()> {
    const MAX_WAITING: usize = 500;
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    let wait = join_all((2..).take(MAX_WAITING + 100).map(|id| page_with(&cluster, id)));
    let others = async {
        wait_until("too many wait", LIMIT, async || {
            Ok(waits(&cluster, "too_many").await? > 0)
        })
        .await?;
        // Neither who asks for an order that is there, nor who asks for none.
        assert_eq!(page_with(&cluster, 1).await?.status, StatusCode::OK);
        assert_eq!(get(&cluster, "/buy_orders").await?.status, StatusCode::OK);
        anyhow::Ok(())
    };
    let (answers, others) = tokio::join!(wait, others);
    others?;
    let mut refused = 0;
    for answer in answers {
        let answer = answer?;
        if answer.body == json!({"detail": TOO_MANY}) {
            assert_unavailable(&answer, TOO_MANY);
            refused += 1;
        } else {
            assert_unavailable(&answer, NOT_YET);
        }
    }
    assert!((1..=100).contains(&refused), "{refused} were refused");
    Ok(())
}

#[tokio::test]
async fn who_waits_while_the_service_stops_is_answered() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let stop = async {
        in_flight(&cluster, 1).await?;
        cluster.terminate(Service::FetchBuyOrders)?;
        insert(cluster.read_model(), 1, 1..=1).await?;
        cluster
            .wait_for_end(Service::FetchBuyOrders, Duration::from_secs(5))
            .await
    };
    let (answer, status) = tokio::try_join!(page_with(&cluster, 1), stop)?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.ids(), [external_id(1)]);
    assert_eq!(status.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn while_the_read_model_is_away_a_position_is_503_and_then_it_is_waited_for_again() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders]).with_own_servers()).await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    assert_eq!(page_with(&cluster, 1).await?.status, StatusCode::OK);
    sqlx::query("CHECKPOINT").execute(cluster.read_model()).await?;

    cluster.stop_server(Server::ReadModel).await?;
    let begun = Instant::now();
    assert_unavailable(&page_with(&cluster, 1).await?, AWAY);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");

    cluster.start_server(Server::ReadModel).await?;
    wait_until("the order is found", LIMIT, async || {
        Ok(page_with(&cluster, 1).await?.status == StatusCode::OK)
    })
    .await
}

#[tokio::test]
async fn a_read_model_that_does_not_answer_is_503_after_2_s() -> anyhow::Result<()> {
    let link = Link::FetchBuyOrdersToReadModel;
    let options = Options::only(&[Service::FetchBuyOrders]).with_links(&[link]);
    let cluster = Cluster::start(options).await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    assert_eq!(page_with(&cluster, 1).await?.status, StatusCode::OK);

    cluster.link(link)?.set(Traffic::DropBoth);
    let begun = Instant::now();
    // It does not know whether the order is there, and does not say so.
    assert_unavailable(&page_with(&cluster, 1).await?, AWAY);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");
    assert_eq!(waits(&cluster, "not_read").await?, 1);
    Ok(())
}
