//! Messages that cannot be projected.

use cluster::{Cluster, Raw, Service, wait_until};
use serde_json::{Value, json};

use crate::support::{LIMIT, all_well, state, station, with_console};

#[tokio::test]
async fn a_dead_letter_is_counted_and_shown_with_its_reason() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    all_well(&cluster).await?;
    let garbage = Raw {
        body: b"this is not JSON".to_vec(),
        message_id: Some("m1".to_owned()),
        message_type: Some("buy_order_created".to_owned()),
    };
    cluster.publish(&[garbage]).await?;
    let mut last = Value::Null;
    wait_until("the letter is shown", LIMIT, async || {
        last = state(&cluster).await?;
        Ok(last["dead_letters"]["ready"] == 1.0)
    })
    .await?;
    let letters = last["dead_letters"]["recent"].as_array().unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter["message_id"], &letter["type"]),
        (&json!("m1"), &json!("buy_order_created"))
    );
    assert!(
        letter["reason"].as_str().unwrap().contains("expected"),
        "{letter}"
    );
    assert!(letter["failed_at"].as_str().unwrap().ends_with('Z'), "{letter}");
    assert_eq!(last["point"]["dead_letters"], 1.0);
    let projector = station(&last, "read_model_sync");
    assert_eq!(
        projector["problems"],
        json!([{"text": "dead letters: 1", "help": "dead-letters"}])
    );

    let dropped = cluster
        .admin(
            Service::ReadModelSync,
            &["dead-letters", "drop", "--all", "--yes"],
            "",
        )
        .await?;
    assert_eq!(dropped.code, Some(0), "{dropped:?}");
    all_well(&cluster).await?;
    Ok(())
}
