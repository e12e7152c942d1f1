//! Messages far larger than any of ours: deliveries in memory are bounded in bytes, so that the container does not run out of memory.

use anyhow::Context as _;
use cluster::{Cluster, Service, wait_until};
use serde_json::Value;

use super::broker::Broker;
use super::{LIMIT, event, last_lines, projection, row, rows, rows_appear};

const MIB: usize = 1024 * 1024;

/// Half of the memory of the container of the service.
const MAX_MIB: u64 = 64;

/// The peak resident memory of the service in MiB.
fn peak_memory_mib(cluster: &Cluster) -> anyhow::Result<u64> {
    let process = cluster.pid(Service::ReadModelSync).context("it does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak
        .and_then(|peak| peak.trim().strip_suffix(" kB"))
        .context("no peak")?
        .trim()
        .parse()?;
    Ok(kib / 1024)
}

#[tokio::test]
async fn sixty_messages_of_four_megabytes_are_dead_lettered_in_little_memory_while_orders_are_projected()
-> anyhow::Result<()> {
    const LARGE: u32 = 60;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let large = vec![b'x'; 4 * MIB];
    let events: Vec<Value> = (1..=i64::from(LARGE)).map(event).collect();
    // All of them have to be in the queue when it begins to consume.
    cluster.stop(Service::ReadModelSync).await?;
    for (event, number) in events.iter().zip(1..) {
        broker.publish_raw(&large, &format!("large {number}")).await?;
        broker.publish([event]).await?;
    }
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, LARGE.into()).await?;
    wait_until("all large messages are dead letters", LIMIT, async || {
        let found = broker.dead_letter_count().await?;
        anyhow::ensure!(found == LARGE, "{found}; {}", last_lines(&cluster));
        Ok(true)
    })
    .await?;
    let peak = peak_memory_mib(&cluster)?;
    assert!(peak < MAX_MIB, "{peak} MiB");
    assert_eq!(rows(&cluster).await?, events.iter().map(row).collect::<Vec<_>>());

    // The broker pushes again, because the queue was empty.
    broker.publish([&event(1000)]).await?;
    rows_appear(&cluster, i64::from(LARGE) + 1).await?;
    let letters = broker.dead_letters(LARGE).await?;
    assert!(
        letters.iter().all(|letter| letter.body == large),
        "bodies are kept"
    );
    let reason = letters[0].header("x-reason").unwrap_or_default();
    assert!(reason.contains("more than 65536"), "{reason}");
    cluster.stop(Service::ReadModelSync).await?;
    assert_eq!(broker.ready().await?, 0, "every delivery was acknowledged");
    Ok(())
}

#[tokio::test]
async fn large_headers_are_bounded_as_large_bodies_are() -> anyhow::Result<()> {
    const MESSAGES: i64 = 1000;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    cluster.stop(Service::ReadModelSync).await?;
    let header = "x".repeat(100_000);
    for id in 1..=MESSAGES {
        broker.publish_with_header(&event(id), &header).await?;
    }
    cluster.start_service(Service::ReadModelSync).await?;
    rows_appear(&cluster, MESSAGES).await?;
    let peak = peak_memory_mib(&cluster)?;
    assert!(peak < MAX_MIB, "{peak} MiB");
    assert_eq!(broker.dead_letter_count().await?, 0);
    Ok(())
}

/// The command may run in the same container as the service.
#[tokio::test]
async fn letters_of_four_megabytes_are_listed_and_shown_in_little_memory() -> anyhow::Result<()> {
    const LARGE: u32 = 40;
    let cluster = projection().await?;
    let broker = Broker::of(&cluster).await?;
    let large = vec![b'x'; 4 * MIB];
    for number in 1..=LARGE {
        broker.publish_raw(&large, &format!("large {number}")).await?;
    }
    wait_until("all are dead letters", LIMIT, async || {
        let found = broker.dead_letter_count().await?;
        anyhow::ensure!(found == LARGE, "{found}; {}", last_lines(&cluster));
        Ok(true)
    })
    .await?;
    let command = cluster.admin_command(Service::ReadModelSync, &["dead-letters", "list"])?;
    let mut limited = std::process::Command::new("prlimit");
    limited
        .arg(format!("--data={}", 96 * MIB))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let ended = tokio::task::spawn_blocking(move || limited.output()).await??;
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        said.ends_with(&format!("letters: {LARGE}\n")),
        "{said}; {ended:?}"
    );
    Ok(())
}
