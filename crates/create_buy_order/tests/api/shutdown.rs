use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Answer, new_key, put_json};

/// Buys one order after the other until it is refused a connection, and returns what was accepted.
async fn buy_until_refused(
    http: reqwest::Client,
    url: String,
    accepted: Arc<AtomicUsize>,
) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    loop {
        let key = new_key();
        match put_json(
            &http,
            &url,
            &json!({ "currency": "USD", "amount": "0.01", "idempotence_key": key }),
        )
        .await
        {
            Ok(answer) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                answers.push((key, answer));
            }
            Err(_) => return answers,
        }
    }
}

#[tokio::test]
async fn sigterm_under_load_loses_no_accepted_request_and_exits_with_0_within_5_s() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(buy_until_refused(
            cluster.http(),
            cluster.url(Service::CreateBuyOrder),
            Arc::clone(&accepted),
        ));
    }
    wait_until("the load is under way", Duration::from_secs(30), async || {
        Ok(accepted.load(Ordering::Relaxed) > 200)
    })
    .await?;

    let asked = Instant::now();
    let status = cluster.stop(Service::CreateBuyOrder).await?;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "took {:?}",
        asked.elapsed()
    );
    assert_eq!(
        status.code(),
        Some(0),
        "{:?}",
        cluster.output(Service::CreateBuyOrder).last()
    );

    let answers: Vec<(String, Answer)> = clients.join_all().await.into_iter().flatten().collect();
    assert!(
        answers.iter().all(|(_, answer)| answer.status == 200),
        "every request that was answered was accepted"
    );
    let written: HashSet<String> = sqlx::query_scalar::<_, uuid::Uuid>("SELECT external_id FROM buy_order")
        .fetch_all(cluster.write_model())
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        answers
            .iter()
            .all(|(_, answer)| written.contains(answer.order("id")))
    );

    // What the stopped relay left behind is taken up after a restart.
    cluster.start_service(Service::CreateBuyOrder).await?;
    wait_until("everything is projected", Duration::from_secs(60), async || {
        let projected: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
            .fetch_one(cluster.read_model())
            .await?;
        Ok(usize::try_from(projected)? == written.len())
    })
    .await
}
