//! Family 8: messages that come twice, out of order, again, or corrupted.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Raw, Service, wait_until};
use uuid::Uuid;

use crate::audit::DEAD_LETTER_QUEUE;
use crate::books::{self, Row};
use crate::scenario::Scenario;
use crate::stage::Stage;

/// Messages are shuffled within windows of this size.
const SHUFFLE_WINDOW: usize = 1_000;

/// Long enough for hundreds of orders.
const GATHERED: Duration = Duration::from_secs(4);

const DEAD_LETTERS_WITHIN: Duration = Duration::from_secs(30);

/// `type` of an order's event.
const CREATED: &str = "buy_order_created";

/// Size of the largest poisoned message, in bytes.
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
            let once = detour.take(SHUFFLE_WINDOW / 2, GATHERED).await?;
            ensure!(!once.is_empty(), "no order was published");
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
        for window in history.chunks_mut(SHUFFLE_WINDOW) {
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
        batch.truncate(SHUFFLE_WINDOW);
        batch.extend(poison);
        random.shuffle(&mut batch);
        cluster.publish(&batch).await?;
        wait_for_dead_letters(&cluster, count).await
    };
    stage
        .harmless_fault("messages: poison among good ones", "", poisoned)
        .await?;
    ensure!(
        cluster.pid(Service::ReadModelSync) == projector,
        "the projector was restarted"
    );
    Ok(())
}

/// Waits until there are this many dead letters. Fails at once when the projector has ended.
pub(super) async fn wait_for_dead_letters(cluster: &Cluster, count: u64) -> anyhow::Result<()> {
    wait_until(
        "the poisoned messages are dead letters",
        DEAD_LETTERS_WITHIN,
        async || {
            let projects = cluster.vitals(Service::ReadModelSync).is_ok();
            Ok(!projects || cluster.queue_messages(DEAD_LETTER_QUEUE).await? >= count)
        },
    )
    .await?;
    cluster.vitals(Service::ReadModelSync).map(drop)
}

/// Republishes the history with the admin command.
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

/// Messages that are clearly no orders. Each has its own id, so that they can be told apart.
pub(super) fn nonsense() -> Vec<Raw> {
    vec![
        poisoned(1, CREATED, b"not json".to_vec()),
        poisoned(2, CREATED, br#"{"id": 1, "client_id": 1}"#.to_vec()),
        poisoned(3, "something_else_happened", br#"{"something": "else"}"#.to_vec()),
    ]
}

fn poisoned(number: usize, message_type: &str, body: Vec<u8>) -> Raw {
    Raw {
        body,
        message_id: Some(format!("poison-{number}")),
        message_type: Some(message_type.to_owned()),
    }
}

/// Nonsense, and messages that look like an order.
fn poison() -> Vec<Raw> {
    let mut poison = nonsense();
    // The body is a valid order, but the type is another.
    let cancelled = unknown_order(poison.len() + 1, "", "").into_bytes();
    poison.push(poisoned(poison.len() + 1, "buy_order_cancelled", cancelled));
    let bad_fields = [
        (r#""currency_iso3":"USD""#, r#""currency_iso3":"usd""#),
        (r#""currency_amount":"1.00""#, r#""currency_amount":"-1.00""#),
        // Numbers and times at the limits of their types.
        (r#""btc_amount":"0.00000001""#, r#""btc_amount":1e-2147483648"#),
        (r#""btc_amount":"0.00000001""#, r#""btc_amount":"1E+2147483647""#),
        ("2026-11-23T15:37:32.531853Z", "9999-12-31T23:59:59-01:00"),
        // The year -1, once in the only form that RFC 3339 allows, and once in an invalid one.
        ("2026-11-23T15:37:32.531853Z", "0000-01-01T00:00:00+23:59"),
        ("2026-11-23T15:37:32.531853Z", "-0001-11-23T15:37:32Z"),
        (r#"{"id":"#, r#"{"id":0,"was":"#),
        (r#"{"id":"#, r#"{"id":-1,"was":"#),
    ];
    for (field, instead) in bad_fields {
        let number = poison.len() + 1;
        let body = unknown_order(number, field, instead).into_bytes();
        poison.push(poisoned(number, CREATED, body));
    }
    poison
}

/// Messages that are poison because of their size: one that is no order, and a valid order with a huge unknown field.
fn large_poison() -> Vec<Raw> {
    let padding = format!(r#"{{"padding":"{}","#, "x".repeat(LARGE / 2));
    [
        (20, vec![b'x'; LARGE]),
        (21, unknown_order(21, "{", &padding).into_bytes()),
    ]
    .map(|(number, body)| poisoned(number, CREATED, body))
    .into()
}

/// A valid order that nobody placed, with `field` replaced by `instead`.
fn unknown_order(number: usize, field: &str, instead: &str) -> String {
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
                assert_ne!(message.body, unknown_order(number, "", "").into_bytes());
            }
        }
    }
}
