//! 8: messages that come twice, in any order, again, or spoilt.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Raw, Service, wait_until};

use crate::audit::DEAD_LETTER_QUEUE;
use crate::books::{self, Row};
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Messages change places within so many.
const SHUFFLED_WITHIN: usize = 1_000;

/// Long enough for hundreds of orders to be under way.
const GATHERED: Duration = Duration::from_secs(4);

/// Of the largest poisoned message.
const LARGE: usize = 10 * 1024 * 1024;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(8, "messages", |stage| Box::pin(messages(stage)))]
}

async fn messages(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let mut random = stage.random.fork();
    let live = async {
        let mut detour = cluster.divert_orders().await?;
        for _ in 0..3 {
            let once = detour.take(SHUFFLED_WITHIN / 2, GATHERED).await?;
            ensure!(!once.is_empty(), "no order was under way");
            let mut twice = [once.clone(), once].concat();
            random.shuffle(&mut twice);
            detour.deliver(&twice).await?;
        }
        detour.end().await
    };
    stage
        .harmless_fault("messages: each delivered twice, shuffled within 1,000", "", live)
        .await?;

    let mut random = stage.random.fork();
    let twice = async {
        let mut history = messages_of(&books::orders(cluster.write_model()).await?);
        history.extend(history.clone());
        for window in history.chunks_mut(SHUFFLED_WITHIN) {
            random.shuffle(window);
        }
        cluster.publish(&history).await
    };
    stage
        .harmless_fault(
            "messages: the whole history twice more, shuffled within 1,000",
            "",
            twice,
        )
        .await?;

    let republished = republish(&cluster, &[]);
    stage
        .harmless_fault("messages: the whole history republished", "", republished)
        .await?;

    let poison = poison();
    stage.poisoned = poison.iter().map(|message| message.body.clone()).collect();
    let count = u64::try_from(poison.len())?;
    let mut random = stage.random.fork();
    let poisoned = async {
        let mut batch = messages_of(&books::orders(cluster.write_model()).await?);
        batch.truncate(SHUFFLED_WITHIN);
        batch.extend(poison);
        random.shuffle(&mut batch);
        cluster.publish(&batch).await?;
        wait_until("the poison is laid aside", Duration::from_secs(30), async || {
            Ok(cluster.queue_messages(DEAD_LETTER_QUEUE).await? >= count)
        })
        .await
    };
    stage
        .harmless_fault("messages: poison among good ones", "", poisoned)
        .await
}

/// Has history sent again by the admin process.
pub(super) async fn republish(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<()> {
    let arguments = [&["republish"], arguments].concat();
    let ended = cluster.admin(Service::CreateBuyOrder, &arguments, "").await?;
    ensure!(ended.code == Some(0), "republish failed: {}", ended.stderr);
    Ok(())
}

fn messages_of(orders: &[Row]) -> Vec<Raw> {
    orders.iter().map(message_of).collect()
}

fn message_of(order: &Row) -> Raw {
    let body = serde_json::json!({
        "id": order.id,
        "client_id": order.client_id,
        "external_id": order.external_id,
        "created_at": order.created_at,
        "currency_id": order.currency_id,
        "currency_iso3": order.currency,
        "currency_amount": order.currency_amount,
        "btc_rate": order.btc_rate,
        "btc_amount": order.btc_amount,
    });
    Raw {
        body: body.to_string().into_bytes(),
        message_id: Some(order.external_id.to_string()),
        message_type: Some("buy_order_created".to_owned()),
    }
}

/// Each with an id of its own, as the copies of one message could not be told apart.
fn poison() -> Vec<Raw> {
    let stranger = |currency: &str, amount: &str| Row {
        id: 1_000_000_000,
        external_id: uuid::Uuid::from_u128(1),
        client_id: 1,
        created_at: "2026-11-23T15:37:32.531853Z".to_owned(),
        currency_id: 1,
        currency: currency.to_owned(),
        currency_amount: amount.to_owned(),
        btc_rate: "1.00000000".to_owned(),
        btc_amount: "0.00000001".to_owned(),
    };
    let spoilt = |number: u8, message_type: &str, body: Vec<u8>| Raw {
        body,
        message_id: Some(format!("poison-{number}")),
        message_type: Some(message_type.to_owned()),
    };
    let created = "buy_order_created";
    vec![
        spoilt(1, created, b"not json".to_vec()),
        spoilt(2, created, br#"{"id": 1, "client_id": 1}"#.to_vec()),
        spoilt(3, created, message_of(&stranger("usd", "1.00")).body),
        spoilt(4, created, message_of(&stranger("USD", "-1.00")).body),
        spoilt(5, created, vec![b'x'; LARGE]),
        spoilt(6, "something_else_happened", br#"{"something": "else"}"#.to_vec()),
    ]
}
