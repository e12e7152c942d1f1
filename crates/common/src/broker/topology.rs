//! Everything that exists on the broker, and why it is declared the way it is. Publisher and consumer declare all of it whenever
//! they connect, so it does not matter who comes first, and what was deleted by mistake comes back.
//!
//! RabbitMQ 3.10 and 4.x give some of these options different defaults; every one that matters is therefore set.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use crate::endpoints;

/// The queue that carries orders to the read model; also the routing key that reaches it.
pub const BUY_ORDER_QUEUE: &str = "buy_order";

/// Where messages wait that can never be applied, until an operator looks at them.
pub const DEAD_LETTER_QUEUE: &str = "buy_order.dead_letter";

/// The exchange in front of [`DEAD_LETTER_QUEUE`], next to the exchange of the events.
#[must_use]
pub fn dead_letter_exchange(exchange: &str) -> String {
    format!("{exchange}.dead_letter")
}

/// More deliveries than a message can ever have: at ten a second it lasts almost seven years.
///
/// RabbitMQ 4 sets the limit to 20 unless told otherwise, and an outage of the read model redelivers more often than that; messages
/// beyond the limit are dropped or dead-lettered, and an outage must do neither. `-1` would mean "no limit" to 4.x, but 3.10
/// takes it for a number below every count. Which message is poison is decided by the consumer, with a reason, not by counting.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// Declares exchanges, queues and bindings. Declaring what is there already changes nothing.
///
/// # Errors
/// When the connection fails, or something of the same name exists with other options.
pub async fn declare(channel: &Channel, queue: &endpoints::Queue) -> lapin::Result<()> {
    declare_unbound(channel, queue).await?;
    bind(channel, DEAD_LETTER_QUEUE, &dead_letter_exchange(&queue.exchange)).await?;
    bind(channel, BUY_ORDER_QUEUE, &queue.exchange).await
}

/// The same without the bindings: enough to find out that one of them was replaced by something else.
///
/// # Errors
/// As [`declare`].
pub async fn declare_unbound(channel: &Channel, queue: &endpoints::Queue) -> lapin::Result<()> {
    let dead_letter_exchange = dead_letter_exchange(&queue.exchange);
    declare_exchange(channel, &queue.exchange).await?;
    declare_exchange(channel, &dead_letter_exchange).await?;

    // The orders' queue first: RabbitMQ 3.10.8 forgets the quorum queue that was declared last when its node is killed within seconds of
    // that (measured; it then answers nobody until it is deleted). So the busy queue is not the last one.
    let arguments = dead_lettered_to(quorum(), &dead_letter_exchange);
    declare_queue(channel, BUY_ORDER_QUEUE, arguments).await?;
    declare_queue(channel, DEAD_LETTER_QUEUE, quorum()).await
}

/// Options of a queue that survives the loss of a node and of power: replicated, and on disk before it confirms.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(literal("x-queue-type"), text("quorum"));
    arguments.insert(literal("x-delivery-limit"), AMQPValue::LongInt(DELIVERY_LIMIT));
    // A full queue refuses the publish, and the outbox keeps the event; the default would drop the oldest message.
    arguments.insert(literal("x-overflow"), text("reject-publish"));
    arguments
}

/// The consumer publishes dead letters itself, with confirms and a reason. This is the net for a message that someone rejects by hand.
///
/// `x-dead-letter-strategy: at-least-once` is left out on purpose. It gives each queue a worker in the broker, and on RabbitMQ 3.10.8 one
/// worker that fails, as it does when its queue or virtual host is deleted, takes the workers of all queues of the node with it: then no
/// such queue can be declared or used until the node is restarted (measured).
fn dead_lettered_to(mut arguments: FieldTable, exchange: &str) -> FieldTable {
    arguments.insert(literal("x-dead-letter-exchange"), text(exchange));
    arguments.insert(literal("x-dead-letter-routing-key"), text(DEAD_LETTER_QUEUE));
    arguments
}

async fn declare_exchange(channel: &Channel, name: &str) -> lapin::Result<()> {
    // Direct: a routing key names one queue. Durable: it is there again after a restart of the broker.
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
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            short(queue),
            short(exchange),
            short(queue),
            options,
            FieldTable::default(),
        )
        .await
}

fn literal(name: &'static str) -> ShortString {
    name.into()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// AMQP's short string, cut to the 255 bytes that it can hold: a longer name is refused by the broker, not by a panic here.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(lapin::types::MAX_SHORT_STRING_LENGTH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
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

    #[test]
    fn the_dead_letter_exchange_stands_next_to_the_exchange() {
        assert_eq!(dead_letter_exchange("pydist"), "pydist.dead_letter");
    }
}
