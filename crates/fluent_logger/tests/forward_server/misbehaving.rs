//! Servers that accept connections and then do not behave.

use std::time::{Duration, Instant, SystemTime};

use fluent_logger::{Config, Flushed, Record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{PATIENCE, Peer, Statuses, listen, quick, send_numbers, wait_until};

#[tokio::test]
async fn a_chunk_that_is_not_acknowledged_is_sent_again_unchanged() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let config = Config {
        ack_timeout: Duration::from_secs(1),
        ..quick(port)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    send_numbers(&sender, "one", 0..10);
    send_numbers(&sender, "two", 0..5);

    let mut silent = Peer::accept(&listener).await?;
    let one = silent.message().await?.expect("a message");
    let two = silent.message().await?.expect("a message");
    assert_eq!(
        (one.tag.as_str(), one.size, two.tag.as_str(), two.size),
        ("one", 10, "two", 5)
    );
    silent.acknowledge(&one).await?;
    assert_eq!(
        silent.message().await?,
        None,
        "the client gives the connection up"
    );

    let mut good = Peer::accept(&listener).await?;
    assert_eq!(
        good.message().await?.as_ref(),
        Some(&two),
        "only what was not acknowledged"
    );
    good.acknowledge(&two).await?;
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 15,
            undelivered: 0
        }
    );
    assert!(
        statuses.failed_with("did not acknowledge within 1s"),
        "{:?}",
        statuses.failures()
    );
    Ok(())
}

#[tokio::test]
async fn acknowledgements_may_come_in_any_order_and_in_pieces() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let (statuses, sender, worker) = Statuses::start(quick(port));
    ["a", "b", "c"]
        .iter()
        .for_each(|tag| send_numbers(&sender, tag, 0..2));
    let mut peer = Peer::accept(&listener).await?;
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(peer.message().await?.expect("a message"));
    }
    peer.stream.set_nodelay(true)?;
    for byte in [messages[1].ack(), messages[2].ack(), messages[0].ack()].concat() {
        peer.stream.write_all(&[byte]).await?;
        tokio::task::yield_now().await;
    }
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 6,
            undelivered: 0
        }
    );
    assert_eq!(statuses.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn a_wrong_acknowledgement_makes_the_client_connect_and_send_again() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let (statuses, sender, worker) = Statuses::start(quick(port));
    send_numbers(&sender, "one", 0..1);
    let mut liar = Peer::accept(&listener).await?;
    let message = liar.message().await?.expect("a message");
    liar.stream.write_all(b"\x81\xa3ack\xa5wrong").await?;
    let mut good = Peer::accept(&listener).await?;
    assert_eq!(good.message().await?.as_ref(), Some(&message));
    good.acknowledge(&message).await?;
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 1,
            undelivered: 0
        }
    );
    assert!(
        statuses.failed_with("a chunk that it was not sent"),
        "{:?}",
        statuses.failures()
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_for_authentication_is_named_as_such() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let (statuses, _sender, worker) = Statuses::start(quick(port));
    let mut peer = Peer::accept(&listener).await?;
    peer.stream
        .write_all(b"\x92\xa4HELO\x81\xa9keepalive\xc3")
        .await?;
    wait_until("it is reported", || {
        statuses.failed_with("asks for authentication")
    })
    .await?;
    worker.flush_and_stop(Duration::ZERO).await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_closes_each_connection_is_tried_with_growing_pauses() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let config = Config {
        retry: Duration::from_millis(100),
        ..quick(port)
    };
    let (_, sender, worker) = Statuses::start(config);
    send_numbers(&sender, "kept", 0..1);
    drop(Peer::accept(&listener).await?);
    let begun = Instant::now();
    for _ in 0..3 {
        drop(Peer::accept(&listener).await?);
    }
    // Half of 100, 200 and 400 ms is the least that jitter leaves.
    assert!(
        begun.elapsed() >= Duration::from_millis(340),
        "{:?}",
        begun.elapsed()
    );
    let flushed = worker.flush_and_stop(Duration::ZERO).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 0,
            undelivered: 1
        }
    );
    Ok(())
}

#[tokio::test]
async fn a_flush_ends_by_its_deadline_when_the_server_never_acknowledges() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let (_, sender, worker) = Statuses::start(quick(port));
    send_numbers(&sender, "unanswered", 0..3);
    let mut silent = Peer::accept(&listener).await?;
    silent.message().await?;
    let begun = Instant::now();
    let flushed = worker.flush_and_stop(Duration::from_millis(300)).await;
    assert_eq!(
        flushed,
        Flushed {
            sent: 0,
            undelivered: 3
        }
    );
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    Ok(())
}

fn send_large(sender: &fluent_logger::Sender, events: usize) {
    for _ in 0..events {
        sender.send(
            "large",
            SystemTime::now(),
            &Record::new().with("text", "x".repeat(400_000)),
        );
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_over_one_connection() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let (statuses, sender, worker) = Statuses::start(quick(port));
    send_large(&sender, 8);
    let reader = tokio::spawn(async move {
        let mut peer = Peer::accept(&listener).await?;
        let mut events = 0;
        while let Some(message) = peer.slow_message(Duration::from_millis(2)).await? {
            events += message.size;
            peer.acknowledge(&message).await?;
        }
        anyhow::Ok(events)
    });
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 8,
            undelivered: 0
        }
    );
    assert_eq!(reader.await??, 8);
    assert_eq!((statuses.connections(), statuses.failures()), (1, vec![]));
    Ok(())
}

#[tokio::test]
async fn a_server_that_stops_reading_is_left_and_what_it_was_sent_is_sent_again() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let config = Config {
        ack_timeout: Duration::from_secs(1),
        ..quick(port)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    send_large(&sender, 6);
    let mut stuck = Peer::accept(&listener).await?;
    stuck.stream.read_u8().await?;
    let mut good = Peer::accept(&listener).await?;
    let reader = tokio::spawn(async move {
        let mut events = 0;
        while let Some(message) = good.message().await? {
            events += message.size;
            good.acknowledge(&message).await?;
        }
        anyhow::Ok(events)
    });
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 6,
            undelivered: 0
        }
    );
    assert_eq!(reader.await??, 6);
    assert_eq!(statuses.failures().len(), 1, "{:?}", statuses.failures());
    Ok(())
}

#[tokio::test]
async fn a_batch_the_server_never_acknowledges_goes_once_the_buffer_is_full() -> anyhow::Result<()> {
    let (listener, port) = listen().await?;
    let config = Config {
        ack_timeout: Duration::from_millis(50),
        buffer_events: 10,
        batch_events: 4,
        retry: Duration::from_millis(10),
        ..quick(port)
    };
    let (statuses, sender, worker) = Statuses::start(config);
    let server = tokio::spawn(async move {
        loop {
            let mut peer = Peer::accept(&listener).await?;
            while let Some(message) = peer.message().await? {
                if message.tag != "poison" {
                    peer.acknowledge(&message).await?;
                }
            }
        }
        #[expect(unreachable_code, reason = "names the type of the error")]
        anyhow::Ok(())
    });
    send_numbers(&sender, "poison", 0..4);
    wait_until("the batch was refused", || {
        statuses.failed_with("did not acknowledge")
    })
    .await?;
    assert_eq!(sender.dropped(), 0);
    send_numbers(&sender, "good", 0..6);
    wait_until("the batch is given up", || sender.dropped() == 4).await?;
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 6,
            undelivered: 0
        }
    );
    assert_eq!(statuses.dropped(), 4);
    server.abort();
    Ok(())
}
