//! Servers that are away, come, and go.

use std::time::{Duration, Instant};

use fluent_logger::{Config, Flushed};

use crate::server::Server;
use crate::support::{PATIENCE, ReservedPort, Statuses, quick, send_numbers, wait_until};

#[tokio::test]
async fn nothing_is_lost_when_the_server_comes_later() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    let (statuses, sender, worker) = Statuses::start(quick(port.number()?));
    send_numbers(&sender, "early", 0..1_000);
    wait_until("some attempts failed", || statuses.failures().len() >= 3).await?;
    assert!(
        statuses
            .failures()
            .iter()
            .all(|error| error.starts_with("could not connect: "))
    );
    assert_eq!(statuses.connections(), 0);

    let server = Server::start(port.number()?).await?;
    let flushed = worker.flush_and_stop(PATIENCE).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 1_000,
            undelivered: 0
        }
    );
    wait_until("all are printed", || server.count() == 1_000).await?;
    assert!(server.numbers("early").into_iter().eq(0..1_000));
    assert_eq!((statuses.connections(), sender.dropped()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_full_buffer_drops_exactly_the_oldest_and_says_how_many() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    let config = Config {
        buffer_events: 100,
        batch_events: 30,
        ..quick(port.number()?)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    send_numbers(&sender, "bounded", 0..250);
    assert_eq!(sender.dropped(), 150);

    let server = Server::start(port.number()?).await?;
    let flushed = worker.flush_and_stop(PATIENCE).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 100,
            undelivered: 0
        }
    );
    wait_until("all are printed", || server.count() == 100).await?;
    assert!(server.numbers("bounded").into_iter().eq(150..250));
    assert_eq!((statuses.dropped(), sender.dropped()), (150, 150));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_though_the_server_is_killed_again_and_again() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    let config = Config {
        batch_events: 50,
        ..quick(port.number()?)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    let mut arrived = Vec::new();
    for round in 0..3 {
        let mut server = Server::start_slow(port.number()?, 40).await?;
        send_numbers(&sender, "killed", round * 2_000..(round + 1) * 2_000);
        wait_until("the server is in the midst of it", || server.count() > 500).await?;
        let failures = statuses.failures().len();
        server.kill()?;
        wait_until("the loss is noticed", || statuses.failures().len() > failures).await?;
        assert!(server.count() < 2_000, "the server was killed too late");
        arrived.extend(server.numbers("killed"));
    }
    let server = Server::start(port.number()?).await?;
    let flushed = worker.flush_and_stop(PATIENCE).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 6_000,
            undelivered: 0
        }
    );
    let complete = || {
        let mut all = [arrived.clone(), server.numbers("killed")].concat();
        all.sort_unstable();
        all.dedup();
        all.into_iter().eq(0..6_000)
    };
    wait_until("every number arrived at one of the servers", complete).await?;
    assert_eq!(sender.dropped(), 0);
    Ok(())
}

#[tokio::test]
async fn an_idle_client_notices_the_end_of_the_server_and_finds_the_next() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    let mut server = Server::start(port.number()?).await?;
    let (statuses, sender, worker) = Statuses::start(quick(port.number()?));
    wait_until("the client is connected", || statuses.connections() == 1).await?;
    server.kill()?;
    wait_until("the client noticed", || !statuses.failures().is_empty()).await?;
    let server = Server::start(port.number()?).await?;
    wait_until("the client is connected again", || statuses.connections() == 2).await?;
    send_numbers(&sender, "after", 0..1);
    wait_until("the event arrives", || server.numbers("after") == [0]).await?;
    worker.flush_and_stop(PATIENCE).await;
    Ok(())
}

#[tokio::test]
async fn a_flush_ends_by_its_deadline_when_the_server_is_dead() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    // Longer than the test may take: the flush must not wait for the next attempt.
    let config = Config {
        retry: Duration::from_secs(600),
        ..quick(port.number()?)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    send_numbers(&sender, "lost", 0..7);
    wait_until("an attempt failed", || !statuses.failures().is_empty()).await?;
    let begun = Instant::now();
    let flushed = worker.flush_and_stop(Duration::from_millis(500)).await;
    let took = begun.elapsed();
    assert_eq!(
        flushed,
        Flushed {
            sent: 0,
            undelivered: 7
        }
    );
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert!(statuses.failures().len() >= 2, "the flush did not try again");
    Ok(())
}

#[tokio::test]
async fn a_flush_of_nothing_does_not_wait_for_a_dead_server() -> anyhow::Result<()> {
    let port = ReservedPort::new()?;
    let (_, _sender, worker) = Statuses::start(quick(port.number()?));
    let begun = Instant::now();
    let flushed = worker.flush_and_stop(PATIENCE).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 0,
            undelivered: 0
        }
    );
    assert!(begun.elapsed() < PATIENCE / 2);
    Ok(())
}
