//! 8: messages that come twice, in any order, again, or spoilt.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Raw, Service, wait_until};
use uuid::Uuid;

use crate::audit::DEAD_LETTER_QUEUE;
use crate::books::{self, Row};
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Messages change places within so many.
const SHUFFLED_WITHIN: usize = 1_000;

/// Long enough for hundreds of orders to be under way.
const GATHERED: Duration = Duration::from_secs(4);

const LAID_ASIDE_WITHIN: Duration = Duration::from_secs(30);

/// `type` of an order's event.
const CREATED: &str = "buy_order_created";

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

    let poison = [poison(), large_poison()].concat();
    stage.poisoned = poison.iter().map(|message| message.body.clone()).collect();
    let count = u64::try_from(poison.len())?;
    let mut random = stage.random.fork();
    let projector = cluster.pid(Service::ReadModelSync);
    let poisoned = async {
        let mut batch = messages_of(&books::orders(cluster.write_model()).await?);
        batch.truncate(SHUFFLED_WITHIN);
        batch.extend(poison);
        random.shuffle(&mut batch);
        cluster.publish(&batch).await?;
        laid_aside(&cluster, count).await
    };
    stage
        .harmless_fault("messages: poison among good ones", "", poisoned)
        .await?;
    ensure!(
        cluster.pid(Service::ReadModelSync) == projector,
        "the projector was started anew"
    );
    Ok(())
}

/// Waits until there are so many dead letters; fails at once when the projector has ended.
pub(super) async fn laid_aside(cluster: &Cluster, count: u64) -> anyhow::Result<()> {
    wait_until("the poison is laid aside", LAID_ASIDE_WITHIN, async || {
        let projects = cluster.vitals(Service::ReadModelSync).is_ok();
        Ok(!projects || cluster.queue_messages(DEAD_LETTER_QUEUE).await? >= count)
    })
    .await?;
    cluster.vitals(Service::ReadModelSync).map(drop)
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
        message_type: Some(CREATED.to_owned()),
    }
}

/// Messages that nobody could take for orders. Each has an id of its own, as the copies of one message could not be told apart.
pub(super) fn nonsense() -> Vec<Raw> {
    vec![
        spoilt(1, CREATED, b"not json".to_vec()),
        spoilt(2, CREATED, br#"{"id": 1, "client_id": 1}"#.to_vec()),
        spoilt(3, "something_else_happened", br#"{"something": "else"}"#.to_vec()),
    ]
}

fn spoilt(number: usize, message_type: &str, body: Vec<u8>) -> Raw {
    Raw {
        body,
        message_id: Some(format!("poison-{number}")),
        message_type: Some(message_type.to_owned()),
    }
}

/// Nonsense, and what looks like an order.
fn poison() -> Vec<Raw> {
    let mut poison = nonsense();
    // It would be an order, if it were called one.
    let cancelled = stranger(poison.len() + 1, "", "").into_bytes();
    poison.push(spoilt(poison.len() + 1, "buy_order_cancelled", cancelled));
    let spoilt_fields = [
        (r#""currency_iso3":"USD""#, r#""currency_iso3":"usd""#),
        (r#""currency_amount":"1.00""#, r#""currency_amount":"-1.00""#),
        // Numbers and times at the ends of what a type can hold.
        (r#""btc_amount":"0.00000001""#, r#""btc_amount":1e-2147483648"#),
        (r#""btc_amount":"0.00000001""#, r#""btc_amount":"1E+2147483647""#),
        ("2026-11-23T15:37:32.531853Z", "9999-12-31T23:59:59-01:00"),
        // The year -1, in the only way that RFC 3339 has for it, and in one that it has not.
        ("2026-11-23T15:37:32.531853Z", "0000-01-01T00:00:00+23:59"),
        ("2026-11-23T15:37:32.531853Z", "-0001-11-23T15:37:32Z"),
        (r#"{"id":"#, r#"{"id":0,"was":"#),
        (r#"{"id":"#, r#"{"id":-1,"was":"#),
    ];
    for (field, instead) in spoilt_fields {
        let number = poison.len() + 1;
        let body = stranger(number, field, instead).into_bytes();
        poison.push(spoilt(number, CREATED, body));
    }
    poison
}

/// Poison by its size: what is no order at all, and what would be one if it did not hold so much that nobody asked for.
fn large_poison() -> Vec<Raw> {
    let padding = format!(r#"{{"padding":"{}","#, "x".repeat(LARGE / 2));
    [
        (20, vec![b'x'; LARGE]),
        (21, stranger(21, "{", &padding).into_bytes()),
    ]
    .map(|(number, body)| spoilt(number, CREATED, body))
    .into()
}

/// An order that nobody placed, with something else in the place of `field`.
fn stranger(number: usize, field: &str, instead: &str) -> String {
    let id = 1_000_000_000 + number;
    let external_id = Uuid::from_u128(id as u128);
    let order = format!(
        r#"{{"id":{id},"client_id":1,"external_id":"{external_id}","created_at":"2026-11-23T15:37:32.531853Z","currency_id":1,"currency_iso3":"USD","currency_amount":"1.00","btc_rate":"1.00000000","btc_amount":"0.00000001"}}"#
    );
    order.replacen(field, instead, 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_poisoned_message_is_another_one_and_none_is_a_good_order() {
        let poison = [poison(), large_poison()].concat();
        let bodies: HashSet<&[u8]> = poison.iter().map(|message| &*message.body).collect();
        assert_eq!(bodies.len(), poison.len());
        for message in poison
            .iter()
            .filter(|message| message.message_type.as_deref() == Some(CREATED))
        {
            for number in 0..50 {
                assert_ne!(message.body, stranger(number, "", "").into_bytes());
            }
        }
    }
}
