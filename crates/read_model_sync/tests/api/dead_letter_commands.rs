//! `read_model_sync dead-letters`, while the service runs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use cluster::{Cluster, Ended, Service, wait_until};
use serde_json::{Value, json};

use super::broker::Broker;
use super::{LIMIT, event, external_id, projection, projection_with_own_servers, row, rows, rows_appear};

async fn dead_letters(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Ended> {
    let arguments = [&["dead-letters"], arguments].concat();
    cluster.admin(Service::ReadModelSync, &arguments, "").await
}

/// The output of a command that must succeed.
async fn done(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let ended = dead_letters(cluster, arguments).await?;
    anyhow::ensure!(ended.code == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

async fn listed(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let lines = done(cluster, &["list", "--json"]).await?;
    Ok(lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters
        .iter()
        .filter_map(|letter| letter["id"].as_str())
        .collect()
}

async fn wait_for_dead_letters(broker: &Broker, expected: u32) -> anyhow::Result<()> {
    wait_until(&format!("{expected} dead letters"), LIMIT, async || {
        let found = broker.dead_letter_count().await?;
        anyhow::ensure!(found == expected, "{found} dead letters");
        Ok(true)
    })
    .await
}

/// A service that has dead-lettered messages with these ids and unreadable bodies.
async fn with_letters(names: &[&str]) -> anyhow::Result<(Cluster, Broker)> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    for name in names {
        broker
            .publish_raw(format!("body of {name}").as_bytes(), name)
            .await?;
    }
    wait_for_dead_letters(&broker, u32::try_from(names.len())?).await?;
    Ok((cluster, broker))
}

#[tokio::test]
async fn the_list_shows_every_letter_and_changes_nothing() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["a", "b", "c"]).await?;
    let first = listed(&cluster).await?;
    assert_eq!(ids(&first), ["a", "b", "c"]);
    for letter in &first {
        assert!(
            letter["reason"]
                .as_str()
                .unwrap()
                .contains("the body is no order")
        );
        assert_eq!(letter["attempts"], 1);
        assert!(letter["first_failed_at"].is_string());
        assert_eq!(letter["first_failed_at"], letter["last_failed_at"]);
        assert_eq!(letter["bytes"], 9);
    }
    assert_eq!(listed(&cluster).await?, first, "the same, in the same order");
    let table = done(&cluster, &["list"]).await?;
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.starts_with("ID ") && table.ends_with("letters: 3\n"),
        "{table}"
    );
    wait_for_dead_letters(&broker, 3).await?;

    done(&cluster, &["drop", "--all", "--yes"]).await?;
    assert_eq!(done(&cluster, &["list"]).await?, "no dead letters\n");
    assert_eq!(done(&cluster, &["list", "--json"]).await?, "");
    Ok(())
}

#[tokio::test]
async fn show_tells_all_of_a_letter_and_leaves_it() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["a", "b"]).await?;
    let shown = done(&cluster, &["show", "--id", "b"]).await?;
    for part in [
        "id: b\n",
        "header traceparent: 00-a-b-01\n",
        "header x-reason: the body is no order",
        "header x-original-routing-key: buy_order\n",
        "header x-attempts: 1\n",
        "payload: 9 bytes\n\nbody of b\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    assert!(!shown.contains("body of a"));
    let ended = dead_letters(&cluster, &["show", "--id", "nobody"]).await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), "no dead letter has the id nobody\n")
    );
    wait_for_dead_letters(&broker, 2).await
}

#[tokio::test]
async fn a_letter_that_is_sent_back_after_mending_becomes_its_row() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let mut in_the_way = event(1);
    in_the_way["btc_amount"] = json!("0.99999999");
    broker.publish([&in_the_way]).await?;
    rows_appear(&cluster, 1).await?;
    broker.publish([&event(1)]).await?;
    broker.publish_raw(b"nonsense", "another").await?;
    wait_for_dead_letters(&broker, 2).await?;

    sqlx::query("DELETE FROM buy_order_read_model")
        .execute(cluster.read_model())
        .await?;
    let said = done(&cluster, &["redrive", "--id", &external_id(1)]).await?;
    assert_eq!(said, "sent back: 1\n");
    rows_appear(&cluster, 1).await?;
    assert_eq!(rows(&cluster).await?, [row(&event(1))]);
    assert_eq!(ids(&listed(&cluster).await?), ["another"], "others stay");
    Ok(())
}

#[tokio::test]
async fn a_letter_that_fails_again_keeps_its_id_body_and_first_failure_and_counts_on() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["a", "b"]).await?;
    let before = listed(&cluster).await?;
    for attempts in [2, 3] {
        assert_eq!(done(&cluster, &["redrive", "--all"]).await?, "sent back: 2\n");
        wait_until("they failed again", LIMIT, async || {
            let letters = listed(&cluster).await?;
            Ok(letters.len() == 2 && letters.iter().all(|letter| letter["attempts"] == attempts))
        })
        .await?;
    }
    let after = listed(&cluster).await?;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before["id"], after["id"]);
        assert_eq!(before["first_failed_at"], after["first_failed_at"]);
        assert!(before["last_failed_at"].as_str() < after["last_failed_at"].as_str());
    }
    // The order may differ: a letter that arrives while a reader is connected may end up after the next one.
    let mut letters = broker.dead_letters(2).await?;
    letters.sort_by(|one, other| one.message_id().cmp(other.message_id()));
    for (letter, name) in letters.iter().zip(["a", "b"]) {
        assert_eq!(letter.message_id(), name);
        assert_eq!(letter.body, format!("body of {name}").as_bytes());
        assert_eq!(letter.header("traceparent").as_deref(), Some("00-a-b-01"));
    }
    Ok(())
}

#[tokio::test]
async fn drop_removes_what_was_named_after_a_confirmation_only() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["a", "b", "a", "c"]).await?;
    let ended = dead_letters(&cluster, &["drop", "--all"]).await?;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("--yes"), "{ended:?}");
    wait_for_dead_letters(&broker, 4).await?;

    let ended = dead_letters(&cluster, &["drop", "--id", "a", "nobody", "--yes"]).await?;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (
            Some(1),
            "2 dead letters share the id a\nno dead letter has the id nobody\ndropped: 2\n"
        )
    );
    assert_eq!(ids(&listed(&cluster).await?), ["b", "c"]);
    Ok(())
}

#[tokio::test]
async fn a_letter_without_a_message_id_is_called_by_the_digest_of_its_body() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["", "b"]).await?;
    let letters = listed(&cluster).await?;
    let digest = ids(&letters)[0];
    assert!(digest.starts_with("sha256:"), "{letters:?}");
    assert!(
        done(&cluster, &["show", "--id", digest])
            .await?
            .contains("body of \n")
    );
    assert_eq!(
        done(&cluster, &["drop", "--id", digest, "--yes"]).await?,
        "dropped: 1\n"
    );
    wait_for_dead_letters(&broker, 1).await
}

#[tokio::test]
async fn ten_thousand_letters_keep_their_order_and_one_is_picked_out() -> anyhow::Result<()> {
    const LETTERS: usize = 10_000;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    // The service cannot read them. `external_id` becomes the message id.
    let events: Vec<Value> = (0..LETTERS)
        .map(|number| json!({ "external_id": format!("letter {number}") }))
        .collect();
    broker.publish(&events).await?;
    wait_for_dead_letters(&broker, u32::try_from(LETTERS)?).await?;
    let before = listed(&cluster).await?;
    assert_eq!(before.len(), LETTERS);
    assert_eq!(
        done(&cluster, &["drop", "--id", "letter 5000", "--yes"]).await?,
        "dropped: 1\n"
    );
    let left: Vec<Value> = before
        .into_iter()
        .filter(|letter| letter["id"] != "letter 5000")
        .collect();
    assert_eq!(listed(&cluster).await?, left);
    Ok(())
}

#[tokio::test]
async fn letters_of_megabytes_are_listed_and_sent_back_whole() -> anyhow::Result<()> {
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let body = vec![b'x'; 4_000_000];
    for number in 0..20 {
        broker.publish_raw(&body, &format!("large {number}")).await?;
    }
    wait_for_dead_letters(&broker, 20).await?;
    assert!(
        listed(&cluster)
            .await?
            .iter()
            .all(|letter| letter["bytes"] == 4_000_000)
    );
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(done(&cluster, &["redrive", "--all"]).await?, "sent back: 20\n");
    assert_eq!(
        (broker.dead_letter_count().await?, broker.ready().await?),
        (0, 20)
    );
    Ok(())
}

/// The process is killed at a random point. The letter that it was sending may then be in both queues, but never in neither.
#[tokio::test]
async fn a_redrive_that_is_killed_loses_no_letter() -> anyhow::Result<()> {
    const LETTERS: i64 = 2_000;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let events: Vec<Value> = (1..=LETTERS).map(event).collect();
    let mut in_the_way = events.clone();
    for other in &mut in_the_way {
        other["btc_amount"] = json!("0.99999999");
    }
    broker.publish(&in_the_way).await?;
    rows_appear(&cluster, LETTERS).await?;
    broker.publish(&events).await?;
    wait_for_dead_letters(&broker, u32::try_from(LETTERS)?).await?;
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(
        broker.ready().await?,
        0,
        "what was dead-lettered does not come again"
    );
    sqlx::query("DELETE FROM buy_order_read_model")
        .execute(cluster.read_model())
        .await?;

    let mut sent_before = 0;
    for _ in 0..3 {
        let mut process = cluster
            .admin_command(Service::ReadModelSync, &["dead-letters", "redrive", "--all"])?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        wait_until("more letters are sent back", LIMIT, async || {
            Ok(broker.ready().await? > sent_before + 50)
        })
        .await?;
        process.kill()?;
        process.wait()?;
        wait_until("what it held is back in its place", LIMIT, async || {
            Ok(broker.dead_letter_readers().await? == 0)
        })
        .await?;
        sent_before = broker.ready().await?;
        let left = broker.dead_letter_count().await?;
        assert!(left > 0, "it was killed midway");
        assert!(i64::from(left + sent_before) >= LETTERS, "{left} + {sent_before}");
    }
    done(&cluster, &["redrive", "--all"]).await?;
    wait_for_dead_letters(&broker, 0).await?;
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, LETTERS).await?;
    let expected: Vec<_> = events.iter().map(row).collect();
    assert_eq!(rows(&cluster).await?, expected);
    Ok(())
}

/// The command asks only on a terminal, which `script` provides.
#[tokio::test]
async fn drop_asks_whoever_sits_at_a_terminal() -> anyhow::Result<()> {
    let (cluster, broker) = with_letters(&["a", "b"]).await?;
    let command = cluster.admin_command(Service::ReadModelSync, &["dead-letters", "drop", "--all"])?;
    let line = format!("{} dead-letters drop --all", command.get_program().display());
    for (answer, said, left) in [("n", "nothing was dropped", 2), ("y", "dropped: 2", 0)] {
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut keyboard = terminal.stdin.take().context("no standard input")?;
        writeln!(keyboard, "{answer}")?;
        let ended = tokio::task::spawn_blocking(move || terminal.wait_with_output()).await??;
        drop(keyboard);
        let shown = String::from_utf8(ended.stdout)?;
        assert!(shown.contains("Drop 2 dead letters for good? [y/N]"), "{shown}");
        assert!(shown.contains(said), "{shown}");
        wait_for_dead_letters(&broker, left).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_away_is_named_at_once_and_nothing_was_done() -> anyhow::Result<()> {
    let cluster = projection_with_own_servers().await?;
    cluster.stop_broker().await?;
    for arguments in [
        &["list"][..],
        &["show", "--id", "a"],
        &["redrive", "--all"],
        &["drop", "--all", "--yes"],
    ] {
        let ended = dead_letters(&cluster, arguments).await?;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(
            ended.stderr.contains("read_model_sync: the queue at"),
            "{ended:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(cluster::Options::only(&[])).await?;
    for arguments in [
        &["redrive"][..],
        &["redrive", "--all", "--id", "a"],
        &["show"],
        &["drop", "--yes"],
        &["lost"],
    ] {
        let ended = dead_letters(&cluster, arguments).await?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
    for (argument, said) in [("--version", "read_model_sync 0."), ("--help", "dead-letters")] {
        let ended = cluster.admin(Service::ReadModelSync, &[argument], "").await?;
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains(said), "{ended:?}");
    }
    Ok(())
}
