//! Publishing with confirms: the result says of every message whether the broker has it.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};

use super::metrics::PUBLISHES;
use super::{Connector, Error, Outgoing, Session, in_time, topology};

/// How many messages may be in flight; more gains nothing and makes a failure cost more.
pub const WINDOW: usize = 1000;

/// How many messages are written to the socket together. lapin answers when they are written: writing them one by one would cost a system
/// call, a packet, and three thread switches for each.
const WRITTEN_TOGETHER: usize = 100;

/// Why the broker did not confirm a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// No queue took it; the broker's reply.
    #[error("returned by the broker: {0}")]
    Returned(String),
    /// A queue refused it: it is full, for example.
    #[error("refused by the broker")]
    Refused,
}

impl Unconfirmed {
    /// The kind of the reason, for spans.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Returned(_) => "returned",
            Self::Refused => "refused",
        }
    }
}

/// A session with a channel in confirm mode.
#[derive(Debug)]
pub struct Publisher {
    /// The connection.
    pub session: Session,
    channel: Channel,
}

impl Publisher {
    /// Opens a channel of the session and turns on confirms.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs.
    pub async fn on(session: Session) -> Result<Self, Error> {
        let channel = session.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        in_time("turn on publisher confirms", select).await?;
        Ok(Self { session, channel })
    }

    /// Connects once.
    ///
    /// # Errors
    /// When the broker is away, refuses, or hangs.
    pub async fn open(connector: &Connector) -> Result<Self, Error> {
        Self::on(Session::open(connector).await?).await
    }

    /// Publishes messages, persistent and mandatory, [`WINDOW`] at a time, and waits for the broker's answer to each. The results are in the
    /// order of the messages. A returned message is recognised by its `message_id`; one without an id fails its whole window. Publishing a
    /// message again is safe, losing one is not: whatever is unclear counts as not confirmed.
    ///
    /// Waits without a timeout while the broker blocks the connection (memory, disk): another connection would be blocked as well.
    ///
    /// # Errors
    /// When the connection fails or the broker hangs: then nothing is known about any of the messages, and the session cannot be used any
    /// more.
    pub async fn publish_all(
        &mut self,
        messages: &[Outgoing],
    ) -> Result<Vec<Result<(), Unconfirmed>>, Error> {
        let mut results = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            let published = self.publish_in_time(window).await;
            let published = published.inspect_err(|_| PUBLISHES.failed.inc_by(window.len() as u64))?;
            for result in &published {
                match result {
                    Ok(()) => PUBLISHES.confirmed.inc(),
                    Err(Unconfirmed::Returned(_)) => PUBLISHES.returned.inc(),
                    Err(Unconfirmed::Refused) => PUBLISHES.failed.inc(),
                }
            }
            results.extend(published);
        }
        Ok(results)
    }

    async fn publish_in_time(&self, window: &[Outgoing]) -> Result<Vec<Result<(), Unconfirmed>>, Error> {
        let mut published = pin!(self.publish_window(window));
        loop {
            match in_time("publish", &mut published).await {
                Err(Error::TimedOut { .. }) if self.session.status().blocked() => {}
                result => return result,
            }
        }
    }

    async fn publish_window(&self, window: &[Outgoing]) -> lapin::Result<Vec<Result<(), Unconfirmed>>> {
        let mut pending = Vec::with_capacity(window.len());
        for together in window.chunks(WRITTEN_TOGETHER) {
            pending.extend(try_join_all(together.iter().map(|message| self.write(message))).await?);
        }
        let mut confirmations = Vec::with_capacity(pending.len());
        for confirmation in pending {
            confirmations.push(confirmation.await?);
        }
        Ok(results(window, confirmations))
    }

    async fn write(&self, message: &Outgoing) -> lapin::Result<PublisherConfirm> {
        const PERSISTENT: u8 = 2;
        // Mandatory: the broker returns a message that no queue takes; else it would confirm and drop it.
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let exchange = topology::short(&message.exchange);
        let routing_key = topology::short(&message.routing_key);
        let properties = message.properties.clone().with_delivery_mode(PERSISTENT);
        self.channel
            .basic_publish(exchange, routing_key, options, &message.body, properties)
            .await
    }
}

/// lapin attaches a returned message to whichever publish is confirmed next, not to its own: returns are matched by message id.
fn results(window: &[Outgoing], confirmations: Vec<Confirmation>) -> Vec<Result<(), Unconfirmed>> {
    let acknowledged: Vec<bool> = confirmations.iter().map(Confirmation::is_ack).collect();
    let own_ids: HashSet<&str> = window
        .iter()
        .filter_map(|message| message_id(&message.properties))
        .collect();
    let mut returned = HashMap::new();
    for message in confirmations.into_iter().filter_map(Confirmation::take_message) {
        let reason = Unconfirmed::Returned(format!("{} {}", message.reply_code, message.reply_text));
        match message_id(&message.properties).and_then(|id| own_ids.get(id)) {
            Some(id) => returned.insert(*id, reason),
            // It can be any message of the window.
            None => return vec![Err(reason); window.len()],
        };
    }
    let mut results = Vec::with_capacity(window.len());
    for (message, acknowledged) in window.iter().zip(acknowledged) {
        let reason = message_id(&message.properties).and_then(|id| returned.get(id));
        results.push(match reason {
            Some(reason) => Err(reason.clone()),
            None if acknowledged => Ok(()),
            None => Err(Unconfirmed::Refused),
        });
    }
    results
}

fn message_id(properties: &BasicProperties) -> Option<&str> {
    properties.message_id().as_ref().map(ShortString::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledged_message_is_confirmed() {
        let window = ["a", "b", "c"].map(|id| Outgoing {
            exchange: "e".to_owned(),
            routing_key: "k".to_owned(),
            properties: BasicProperties::default().with_message_id(id.into()),
            body: Vec::new(),
        });
        let confirmations = vec![
            Confirmation::Ack(None),
            Confirmation::Nack(None),
            Confirmation::NotRequested,
        ];
        let refused = Err(Unconfirmed::Refused);
        assert_eq!(
            results(&window, confirmations),
            [Ok(()), refused.clone(), refused]
        );
    }
}
