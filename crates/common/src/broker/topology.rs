//! Everything that exists on the broker, and why it is declared the way it is. `migration` declares all of it, again and again: what was
//! deleted by mistake comes back. Publishers and consumers may not declare. They check that it exists whenever they connect.
//!
//! RabbitMQ 3.10 and 4.x give some of these options different defaults; every option that matters is therefore set.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

/// The queue that carries orders to the read model; also the routing key that reaches it.
pub const BUY_ORDER_QUEUE: &str = "buy_order";

/// The dead-letter queue of the queue `name`, where messages that can never be applied wait for an operator. Or the dead-letter exchange of
/// the exchange `name`, which leads to such queues.
#[must_use]
pub fn dead_letter_name(name: &str) -> String {
    format!("{name}.dead_letter")
}

/// More deliveries than a message can ever have: at ten a second this lasts almost seven years.
///
/// RabbitMQ 4 sets the limit to 20 unless told otherwise, and drops or dead-letters messages beyond it. An outage of the read model
/// redelivers more often, and must do neither. `-1` means "no limit" to 4.x, but 3.10 takes it for a number below every count. The consumer
/// decides which message is poison, with a reason and not by counting.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// Declares a queue, its dead-letter queue, their exchanges and bindings. Declaring what exists already changes nothing, and fails if its
/// options differ.
pub(super) async fn declare(channel: &Channel, exchange: &str, queue: &str) -> lapin::Result<()> {
    declare_exchange(channel, exchange).await?;
    declare_exchange(channel, &dead_letter_name(exchange)).await?;

    // The dead-letter queue last, because it is the quiet one: RabbitMQ 3.10.8 forgets the quorum queue that was declared last when its node
    // is killed within seconds of that, and the queue then answers nobody until it is deleted (measured).
    declare_queue(channel, queue, dead_lettered(quorum(), exchange, queue)).await?;
    declare_queue(channel, &dead_letter_name(queue), quorum()).await?;

    bind(channel, &dead_letter_name(queue), &dead_letter_name(exchange)).await?;
    bind(channel, queue, exchange).await
}

/// Takes the queue away from the exchange: what is published is then returned to its publisher.
pub(super) async fn unbind(channel: &Channel, exchange: &str, queue: &str) -> lapin::Result<()> {
    channel
        .queue_unbind(short(queue), short(exchange), short(queue), FieldTable::default())
        .await
}

/// Fails if an exchange or a queue is missing. It needs no permission.
pub(super) async fn check(channel: &Channel, exchange: &str, queue: &str) -> lapin::Result<()> {
    for name in [exchange, &dead_letter_name(exchange)] {
        check_exchange(channel, name).await?;
    }
    for name in [queue, &dead_letter_name(queue)] {
        let options = QueueDeclareOptions::durable().passive();
        channel
            .queue_declare(short(name), options, FieldTable::default())
            .await?;
    }
    Ok(())
}

/// Fails if the exchange is missing.
pub(super) async fn check_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(short(name), ExchangeKind::Direct, options, FieldTable::default())
        .await
}

/// Options of a queue that survives the loss of a node and of power: replicated, and on disk before it confirms.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    // A full queue refuses the publish, and the outbox keeps the event; the default would drop the oldest message.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

/// The consumer publishes dead letters itself, with confirms and a reason. These options are for messages that an operator rejects by hand.
///
/// `x-dead-letter-strategy: at-least-once` is left out on purpose. It gives each queue a worker in the broker. On RabbitMQ 3.10.8 a worker
/// fails when its queue or virtual host is deleted, and takes the workers of all queues of the node with it: then no such queue can be
/// declared or used until the node is restarted (measured).
fn dead_lettered(mut arguments: FieldTable, exchange: &str, queue: &str) -> FieldTable {
    arguments.insert("x-dead-letter-exchange".into(), text(&dead_letter_name(exchange)));
    arguments.insert("x-dead-letter-routing-key".into(), text(&dead_letter_name(queue)));
    arguments
}

async fn declare_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    // Direct: a routing key names one queue. Durable: it survives a restart of the broker.
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(short(name), ExchangeKind::Direct, options, FieldTable::default())
        .await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    channel
        .queue_declare(short(name), QueueDeclareOptions::durable(), arguments)
        .await
        .map(drop)
}

/// Binds a queue by its own name as routing key.
async fn bind(channel: &Channel, queue: &str, exchange: &str) -> lapin::Result<()> {
    let (queue, exchange) = (short(queue), short(exchange));
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.clone(), exchange, queue, options, FieldTable::default())
        .await
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// AMQP's short string, cut to the 255 bytes that it can hold: so the broker refuses a name that is too long, and nothing panics here.
pub(super) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(lapin::types::MAX_SHORT_STRING_LENGTH);
    ShortString::try_new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_too_long_for_amqp_is_cut_at_a_character() {
        let name = format!("{}é", "a".repeat(254));
        assert_eq!(short(&name).as_str(), "a".repeat(254));
        assert_eq!(short("buy_order").as_str(), "buy_order");
    }
}
