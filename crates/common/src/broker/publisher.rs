//! Publishing with confirms: the result of a window says of every message whether the broker has it.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionStatus, PublisherConfirm};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Error, Outgoing, Session, link, measure, topology, within};
use crate::endpoints;
use crate::logging::chain;

/// How many messages may be on their way at once; more gains nothing and makes a failure cost more.
pub const WINDOW: usize = 1000;

/// How many messages are handed to the connection at once. It answers when they are on the socket: one at a time would each cost a system call,
/// a packet, and the waking of three threads.
const HANDED_OVER_TOGETHER: usize = 100;

/// A window is confirmed within tens of milliseconds.
const WINDOW_LIMIT: Duration = Duration::from_secs(10);

const RETURNED: &str = "returned by the broker";

/// What the broker did with one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in a queue, on disk.
    Confirmed,
    /// It is in no queue that we know of, and why.
    NotConfirmed(String),
}

impl Verdict {
    /// Whether no queue took the message.
    #[must_use]
    pub fn is_returned(&self) -> bool {
        matches!(self, Self::NotConfirmed(reason) if reason.starts_with(RETURNED))
    }
}

/// A channel in confirm mode.
pub struct Publisher {
    channel: Channel,
    connection: ConnectionStatus,
}

impl Publisher {
    /// Opens a channel of the session and turns on confirms.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn on(session: &Session) -> Result<Self, Error> {
        let channel = session.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        within(WINDOW_LIMIT, "turn on publisher confirms", select).await?;
        Ok(Self {
            channel,
            connection: session.status(),
        })
    }

    /// Publishes messages, persistent and mandatory, [`WINDOW`] at a time, and waits until the broker has spoken about each. The verdicts are
    /// in the order of the messages. The return of a message is told by its `message_id`; one without an id fails its whole window. Publishing
    /// the same message again is safe, losing one is not: whatever is unclear is not confirmed.
    ///
    /// Waits as long as it takes while the broker has told us that it takes no messages for now (memory, disk): another connection would be
    /// blocked as well.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs: then nothing is known about any of the messages, and the session is of no more use.
    pub async fn publish_all(&mut self, messages: &[Outgoing]) -> Result<Vec<Verdict>, Error> {
        let mut verdicts = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            let published = self.publish_in_time(window).await;
            measure::count(window, &published);
            verdicts.extend(published?);
        }
        Ok(verdicts)
    }

    async fn publish_in_time(&self, window: &[Outgoing]) -> Result<Vec<Verdict>, Error> {
        let mut published = pin!(self.publish_window(window));
        loop {
            match within(WINDOW_LIMIT, "publish", &mut published).await {
                Err(Error::TimedOut { .. }) if self.connection.blocked() => {}
                outcome => return outcome,
            }
        }
    }

    async fn publish_window(&self, window: &[Outgoing]) -> Result<Vec<Verdict>, lapin::Error> {
        let mut pending = Vec::with_capacity(window.len());
        for together in window.chunks(HANDED_OVER_TOGETHER) {
            pending.extend(try_join_all(together.iter().map(|message| self.publish(message))).await?);
        }
        let mut confirmations = Vec::with_capacity(pending.len());
        for confirmation in pending {
            confirmations.push(confirmation.await?);
        }
        Ok(verdicts(window, confirmations))
    }

    /// Until it is on the socket.
    async fn publish(&self, message: &Outgoing) -> Result<PublisherConfirm, lapin::Error> {
        const PERSISTENT: u8 = 2;
        // Mandatory: a message that no queue takes comes back; else the broker would confirm and forget it.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let exchange = topology::short(&message.exchange);
        let routing_key = topology::short(&message.routing_key);
        let properties = message.properties.clone().with_delivery_mode(PERSISTENT);
        let publish = self
            .channel
            .basic_publish(exchange, routing_key, options, &message.body, properties);
        publish.await
    }
}

/// lapin hands a returned message to whichever publish is confirmed next, not to its own: returns are matched by message id.
fn verdicts(window: &[Outgoing], confirmations: Vec<Confirmation>) -> Vec<Verdict> {
    let mut acknowledged = Vec::with_capacity(window.len());
    let mut returns = Vec::new();
    for confirmation in confirmations {
        acknowledged.push(confirmation.is_ack());
        returns.extend(confirmation.take_message());
    }
    let returned_ids: HashSet<&str> = returns
        .iter()
        .filter_map(|returned| message_id(&returned.properties))
        .collect();
    let own_ids: HashSet<&str> = window
        .iter()
        .filter_map(|message| message_id(&message.properties))
        .collect();
    let unmatched = returns
        .iter()
        .find(|returned| message_id(&returned.properties).is_none_or(|id| !own_ids.contains(id)));
    let returned_because = |returned: &BasicReturnMessage| {
        format!("{RETURNED}: {} {}", returned.reply_code, returned.reply_text)
    };
    window
        .iter()
        .zip(acknowledged)
        .map(|(message, acknowledged)| {
            if let Some(returned) = unmatched {
                return Verdict::NotConfirmed(returned_because(returned));
            }
            let id = message_id(&message.properties);
            if id.is_some_and(|id| returned_ids.contains(id)) {
                let own = returns
                    .iter()
                    .find(|returned| message_id(&returned.properties) == id);
                return Verdict::NotConfirmed(own.map(returned_because).unwrap_or_default());
            }
            if acknowledged {
                Verdict::Confirmed
            } else {
                Verdict::NotConfirmed("refused by the broker".to_owned())
            }
        })
        .collect()
}

fn message_id(properties: &BasicProperties) -> Option<&str> {
    properties
        .message_id()
        .as_ref()
        .map(lapin::types::ShortString::as_str)
}

/// A session that publishes.
pub struct Publishing {
    /// The connection.
    pub session: Session,
    /// The channel in confirm mode.
    pub publisher: Publisher,
}

/// Connects until it succeeds, with an event per try; nothing when the process was asked to stop.
pub async fn connect_publisher(
    queue: &endpoints::Queue,
    name: &str,
    backoff: &mut Backoff,
    stopping: &CancellationToken,
) -> Option<Publishing> {
    link::wanted(name);
    loop {
        match stopping
            .run_until_cancelled(Publishing::open(queue, name))
            .await?
        {
            Ok(publishing) => {
                link::up(name, publishing.session.status());
                tracing::info!(
                    event = "queue_publisher_connected",
                    queue_name = topology::BUY_ORDER_QUEUE
                );
                return Some(publishing);
            }
            Err(error) => {
                link::failed(name, &error);
                Publishing::report_failure(queue, &error);
            }
        }
        if !backoff.pause(stopping).await {
            return None;
        }
    }
}

impl Publishing {
    /// Connects once.
    ///
    /// # Errors
    /// When the broker is away, refuses, or hangs.
    pub async fn open(queue: &endpoints::Queue, name: &str) -> Result<Self, Error> {
        let session = Session::open(queue, name).await?;
        let publisher = Publisher::on(&session).await?;
        Ok(Self { session, publisher })
    }

    /// The event of a connection that could not be made, or was lost.
    pub fn report_failure(queue: &endpoints::Queue, error: &Error) {
        tracing::warn!(
            event = "queue_publisher_failed_to_connect",
            queue_host = queue.host,
            queue_port = queue.port,
            queue_name = topology::BUY_ORDER_QUEUE,
            info = chain(error)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(id: Option<&str>) -> Outgoing {
        let properties = BasicProperties::default();
        Outgoing {
            exchange: "e".to_owned(),
            routing_key: "k".to_owned(),
            properties: match id {
                Some(id) => properties.with_message_id(id.into()),
                None => properties,
            },
            body: Vec::new(),
        }
    }

    fn confirmed(verdicts: &[Verdict]) -> Vec<bool> {
        verdicts
            .iter()
            .map(|verdict| *verdict == Verdict::Confirmed)
            .collect()
    }

    #[test]
    fn an_acknowledged_message_is_confirmed_and_a_refused_one_is_not() {
        let window = [outgoing(Some("a")), outgoing(Some("b"))];
        let verdicts = verdicts(&window, vec![Confirmation::Ack(None), Confirmation::Nack(None)]);
        assert_eq!(confirmed(&verdicts), [true, false]);
    }

    #[test]
    fn without_confirm_mode_nothing_is_confirmed() {
        assert_eq!(
            confirmed(&verdicts(
                &[outgoing(Some("a"))],
                vec![Confirmation::NotRequested]
            )),
            [false]
        );
    }
}
