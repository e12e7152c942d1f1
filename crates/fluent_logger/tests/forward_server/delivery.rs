//! What arrives at a healthy server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluent_logger::{Flushed, Record};
use serde_json::json;

use crate::server::Server;
use crate::support::{PATIENCE, Statuses, quick, send_numbers, wait_until};

#[tokio::test]
async fn events_arrive_by_tag_with_all_fields_and_nanoseconds() -> anyhow::Result<()> {
    let server = Server::start(0).await?;
    let (statuses, sender, worker) = Statuses::start(quick(server.port));
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 987_654_321);
    let record = Record::new()
        .with("text", "größer € 𝄞")
        .with("long", "x".repeat(100_000))
        .with("yes", true)
        .with("nothing", None::<String>)
        .with("negative", -5_000_000_000_i64)
        .with("count", 4_294_967_296_u64)
        .with("ratio", 0.25)
        .with("list", vec![1_u8, 2, 3])
        .with("inner", json!({"a": {"b": "c"}}));
    sender.send("app.one", time, &record);
    sender.send("app.two", time, &Record::new());
    let flushed = worker.flush_and_stop(PATIENCE).await;

    assert_eq!(
        flushed,
        Flushed {
            sent: 2,
            undelivered: 0
        }
    );
    wait_until("both events are printed", || server.count() == 2).await?;
    let (seconds, nanos) = (1_700_000_000, 987_654_321);
    let record = json!({
        "text": "größer € 𝄞", "long": "x".repeat(100_000), "yes": true, "nothing": null,
        "negative": -5_000_000_000_i64, "count": 4_294_967_296_u64, "ratio": 0.25, "list": [1, 2, 3],
        "inner": {"a": {"b": "c"}},
    });
    let expected = [
        json!({"tag": "app.one", "seconds": seconds, "nanos": nanos, "record": record}),
        json!({"tag": "app.two", "seconds": seconds, "nanos": nanos, "record": {}}),
    ];
    assert_eq!(server.events(), expected);
    assert_eq!((statuses.connections(), statuses.failures()), (1, vec![]));
    Ok(())
}

#[tokio::test]
async fn a_lone_event_is_sent_without_others_to_fill_its_batch() -> anyhow::Result<()> {
    let server = Server::start(0).await?;
    let (_, sender, worker) = Statuses::start(quick(server.port));
    for number in 0..3 {
        send_numbers(&sender, "lone", number..number + 1);
        wait_until("the event arrives", || {
            server.numbers("lone").last() == Some(&number)
        })
        .await?;
    }
    worker.flush_and_stop(PATIENCE).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_send_and_each_event_arrives_once_and_in_its_order() -> anyhow::Result<()> {
    let server = Server::start(0).await?;
    let (_, sender, worker) = Statuses::start(quick(server.port));
    let threads: Vec<_> = (0..5)
        .map(|thread| {
            let sender = sender.clone();
            std::thread::spawn(move || send_numbers(&sender, &format!("thread.{thread}"), 0..2_000))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a sending thread panicked");
    }
    let flushed = worker.flush_and_stop(PATIENCE).await;

    assert_eq!(
        flushed,
        Flushed {
            sent: 10_000,
            undelivered: 0
        }
    );
    assert_eq!(sender.dropped(), 0);
    wait_until("all are printed", || server.count() == 10_000).await?;
    for thread in 0..5 {
        assert!(
            server
                .numbers(&format!("thread.{thread}"))
                .into_iter()
                .eq(0..2_000)
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_event_sent_after_the_end_is_counted_as_dropped() -> anyhow::Result<()> {
    let server = Server::start(0).await?;
    let (_, sender, worker) = Statuses::start(quick(server.port));
    assert_eq!(
        worker.flush_and_stop(PATIENCE).await,
        Flushed {
            sent: 0,
            undelivered: 0
        }
    );
    sender.send("late", SystemTime::now(), &Record::new());
    assert_eq!(sender.dropped(), 1);
    Ok(())
}
