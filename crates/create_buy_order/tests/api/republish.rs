//! `create_buy_order republish`: the read model can be thrown away.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster::{Cluster, Ended, Options, Server, Service, wait_until};

use super::count;
use super::outbox::{everything_is_projected, place, projected};

async fn republish(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Ended> {
    let arguments = [&["republish"], arguments].concat();
    cluster.admin(Service::CreateBuyOrder, &arguments, "").await
}

/// A cluster whose orders are all in the read model.
async fn cluster_with(orders: usize) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options::default()).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], orders).await?;
    everything_is_projected(&cluster).await?;
    Ok(cluster)
}

async fn lose_the_read_model(cluster: &Cluster) -> anyhow::Result<()> {
    sqlx::query("TRUNCATE buy_order_read_model")
        .execute(cluster.read_model())
        .await?;
    Ok(())
}

/// Waits until the read model holds exactly these orders.
async fn projected_ids(cluster: &Cluster, expected: &[i64]) -> anyhow::Result<()> {
    wait_until(
        "the orders that were sent are projected",
        Duration::from_secs(60),
        async || {
            let ids: Vec<i64> = projected(cluster).await?.iter().map(|row| row.0).collect();
            anyhow::ensure!(ids == expected, "{ids:?}");
            Ok(true)
        },
    )
    .await
}

#[tokio::test]
async fn a_read_model_that_was_emptied_is_equal_again_row_by_row_while_orders_come_in() -> anyhow::Result<()>
{
    const ORDERS: usize = 2_500;
    let cluster = cluster_with(ORDERS).await?;
    let before = projected(&cluster).await?;
    lose_the_read_model(&cluster).await?;
    let urls = [cluster.url(Service::CreateBuyOrder)];
    let (ended, placed) = tokio::join!(republish(&cluster, &[]), place(&cluster, &urls, 200));
    placed?;
    let ended = ended?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("are in the queue again"), "{ended:?}");

    everything_is_projected(&cluster).await?;
    let after = projected(&cluster).await?;
    assert_eq!(after.len(), ORDERS + 200);
    assert_eq!(after[..ORDERS], before);
    Ok(())
}

#[tokio::test]
async fn an_empty_book_is_republished_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let ended = republish(&cluster, &[]).await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "no order is in this range: there is nothing to send\n")
    );
    Ok(())
}

#[tokio::test]
async fn only_the_orders_of_the_range_are_sent() -> anyhow::Result<()> {
    let cluster = cluster_with(20).await?;
    let ids: Vec<i64> = projected(&cluster).await?.iter().map(|row| row.0).collect();
    lose_the_read_model(&cluster).await?;

    let (from, to) = (ids[5].to_string(), ids[7].to_string());
    let ended = republish(&cluster, &["--from-id", &from, "--to-id", &to]).await?;
    assert_eq!(
        (ended.code, ended.stdout),
        (
            Some(0),
            format!("3 orders, ids {from} to {to}, are in the queue again\n")
        )
    );
    projected_ids(&cluster, &ids[5..=7]).await?;

    let since: String = sqlx::query_scalar(
        r#"SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM buy_order WHERE id = $1"#,
    )
    .bind(ids[15])
    .fetch_one(cluster.write_model())
    .await?;
    assert_eq!(republish(&cluster, &["--since", &since]).await?.code, Some(0));
    projected_ids(&cluster, &[&ids[5..=7], &ids[15..]].concat()).await?;

    let ended = republish(&cluster, &["--from-id", "1000000"]).await?;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("nothing to send"), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn one_that_is_stopped_midway_says_where_to_go_on_and_the_rest_makes_the_read_model_equal()
-> anyhow::Result<()> {
    let cluster = cluster_with(60).await?;
    lose_the_read_model(&cluster).await?;
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM buy_order ORDER BY id")
        .fetch_all(cluster.write_model())
        .await?;
    let last = ids[59].to_string();
    // So slow that it cannot finish before the signal.
    let mut process = cluster
        .admin_command(
            Service::CreateBuyOrder,
            &["republish", "--rate", "2", "--to-id", &last],
        )?
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    wait_until("some orders are sent", Duration::from_secs(60), async || {
        Ok(projected(&cluster).await?.len() >= 2)
    })
    .await?;
    let said = stopped(&mut process)?;
    let to = format!(" --to-id {last}\n");
    let next = said
        .strip_prefix("interrupted: go on with republish --from-id ")
        .and_then(|said| said.strip_suffix(&to))
        .with_context(|| said.clone())?;
    // All orders before it are in the queue, so the rest is enough.
    let next_order = ids.iter().position(|id| id.to_string() == next);
    let sent = next_order.with_context(|| said.clone())?;
    assert!(sent >= 2, "{said}");
    wait_until(
        "what was sent is projected",
        Duration::from_secs(60),
        async || Ok(projected(&cluster).await?.len() >= sent),
    )
    .await?;

    let ended = republish(&cluster, &["--from-id", next, "--to-id", &last]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 60);
    Ok(())
}

/// Stops a process by SIGTERM, and returns its output, which must say that the work is unfinished.
fn stopped(process: &mut Child) -> anyhow::Result<String> {
    Command::new("kill").arg(process.id().to_string()).status()?;
    let mut said = String::new();
    let mut output = process.stdout.take().context("no output")?;
    output.read_to_string(&mut said)?;
    assert_eq!(process.wait()?.code(), Some(1), "{said}");
    Ok(said)
}

#[tokio::test]
async fn while_the_broker_is_away_history_waits_and_it_is_sent_when_it_is_back() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    place(&cluster, &[cluster.url(Service::CreateBuyOrder)], 20).await?;
    everything_is_projected(&cluster).await?;
    lose_the_read_model(&cluster).await?;
    let (first, last): (i64, i64) = sqlx::query_as("SELECT min(id), max(id) FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    cluster.stop_broker().await?;
    let waiting = || {
        let mut process = cluster
            .admin_command(Service::CreateBuyOrder, &["republish"])?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stderr.take().context("no output")?).lines();
        let mut told = lines.by_ref().map_while(Result::ok);
        let told = told.find(|line| line.contains("queue_publisher_failed_to_connect"));
        assert!(told.is_some(), "it says why it waits");
        anyhow::Ok((process, lines))
    };
    let (mut process, _lines) = waiting()?;
    assert_eq!(
        stopped(&mut process)?,
        format!("interrupted: go on with republish --from-id {first}\n")
    );

    let (process, _lines) = waiting()?;
    cluster.start_broker().await?;
    let ended = tokio::task::spawn_blocking(move || process.wait_with_output()).await??;
    assert_eq!(
        (ended.status.code(), String::from_utf8(ended.stdout)?),
        (
            Some(0),
            format!("20 orders, ids {first} to {last}, are in the queue again\n")
        )
    );
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 20);
    Ok(())
}

#[tokio::test]
async fn history_is_sent_no_faster_than_the_rate() -> anyhow::Result<()> {
    let cluster = cluster_with(60).await?;
    lose_the_read_model(&cluster).await?;
    let begun = Instant::now();
    let ended = republish(&cluster, &["--rate", "20"]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Two at a time, thirty times.
    let least = Duration::from_millis(100) * 29;
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    everything_is_projected(&cluster).await
}

#[tokio::test]
async fn one_that_is_killed_midway_can_be_started_again() -> anyhow::Result<()> {
    let cluster = cluster_with(60).await?;
    lose_the_read_model(&cluster).await?;
    let mut process = cluster
        .admin_command(Service::CreateBuyOrder, &["republish", "--rate", "2"])?
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(process.stderr.take().context("no output")?).lines();
    let told = lines
        .map_while(Result::ok)
        .find(|line| line.contains("orders sent, through id"));
    assert!(told.is_some(), "progress is told where there is no terminal");
    process.kill()?;
    process.wait()?;

    assert_eq!(republish(&cluster, &[]).await?.code, Some(0));
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 60);
    Ok(())
}

#[tokio::test]
async fn history_is_sent_while_the_service_is_stopped() -> anyhow::Result<()> {
    let cluster = cluster_with(20).await?;
    cluster.stop(Service::CreateBuyOrder).await?;
    lose_the_read_model(&cluster).await?;
    let ended = republish(&cluster, &[]).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(count(&cluster, "outbox").await?, 0, "nobody else has to send it");
    everything_is_projected(&cluster).await?;
    assert_eq!(projected(&cluster).await?.len(), 20);
    Ok(())
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused_and_a_database_that_is_away_is_named() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::only(&[]).with_own_servers()).await?;
    for (arguments, why) in [
        (
            vec!["--from-id", "2", "--to-id", "1"],
            "--from-id 2 is greater than --to-id 1",
        ),
        (vec!["--from-id", "0"], "not in 1.."),
        (vec!["--since", "yesterday"], "no time in RFC 3339"),
        (vec!["--rate", "0"], "not in 1..=100000"),
        (vec!["--everything"], "unexpected argument"),
    ] {
        let ended = republish(&cluster, &arguments).await?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
    cluster.stop_server(Server::WriteModel).await?;
    let ended = republish(&cluster, &[]).await?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(
        ended
            .stderr
            .contains("create_buy_order: the database write_model at"),
        "{ended:?}"
    );
    Ok(())
}
