//! The task that publishes dead letters, on a connection of its own that exists only while there is something to publish.

use std::slice;
use std::time::Duration;

use common::broker::{Connector, Error, Outgoing, Publisher, Unconfirmed};
use common::logging::chain;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

use super::{SendResult, Ticket};
use crate::recent_letters::RecentLetters;

/// Letters that are published together: lapin copies each into frames before it sends them.
const WINDOW: usize = 100;
const WINDOW_BYTES: usize = 256 * 1024;

/// A broker that works confirms within milliseconds; one that is short of memory or disk takes no messages at all.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle connection is closed after this time: its buffers have grown to the largest letter, and never shrink.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes letters until the sender is dropped.
pub(super) async fn run(
    connector: Connector,
    mut letters: UnboundedReceiver<(Ticket, Outgoing)>,
    results: UnboundedSender<SendResult>,
    recent: RecentLetters,
) {
    let mut publishing = Publishing {
        connector,
        publisher: None,
    };
    loop {
        let next = match timeout(IDLE_TIMEOUT, letters.recv()).await {
            Ok(next) => next,
            Err(_) => {
                if let Some(publisher) = publishing.publisher.take() {
                    publisher.session.close().await;
                }
                letters.recv().await
            }
        };
        let Some((ticket, message)) = next else { return };
        let mut bytes = ticket.bytes;
        let (mut tickets, mut window) = (vec![ticket], vec![message]);
        while window.len() < WINDOW && bytes < WINDOW_BYTES {
            let Ok((ticket, message)) = letters.try_recv() else {
                break;
            };
            bytes += ticket.bytes;
            tickets.push(ticket);
            window.push(message);
        }
        let published = publishing.publish(&window).await;
        let taken = window.iter().zip(&published).filter(|(_, result)| result.is_ok());
        taken.for_each(|(letter, _)| recent.add(letter));
        for result in tickets.into_iter().zip(published) {
            // Fails if the projector is gone, because the process ends.
            let _ = results.send(result);
        }
    }
}

struct Publishing {
    connector: Connector,
    publisher: Option<Publisher>,
}

/// Why nothing is known to be published.
enum Failure {
    /// The broker ended the channel or the connection, maybe because of a letter.
    ByALetter(String),
    /// The broker is away, silent or blocked.
    Unavailable(String),
}

impl Publishing {
    /// Returns for each letter why it was not published.
    async fn publish(&mut self, window: &[Outgoing]) -> Vec<Result<(), String>> {
        match self.attempt(window).await {
            Ok(published) => published,
            Err(Failure::ByALetter(_)) if window.len() > 1 => self.publish_each(window).await,
            Err(Failure::ByALetter(reason) | Failure::Unavailable(reason)) => {
                vec![Err(reason); window.len()]
            }
        }
    }

    /// One of the letters ended the connection or the channel, by its size or its headers: publishing each alone finds it.
    async fn publish_each(&mut self, window: &[Outgoing]) -> Vec<Result<(), String>> {
        let mut published = Vec::with_capacity(window.len());
        for letter in window {
            match self.attempt(slice::from_ref(letter)).await {
                Ok(mut one) => published.append(&mut one),
                Err(Failure::ByALetter(reason)) => published.push(Err(reason)),
                Err(Failure::Unavailable(reason)) => {
                    published.resize(window.len(), Err(reason));
                    break;
                }
            }
        }
        published
    }

    async fn attempt(&mut self, letters: &[Outgoing]) -> Result<Vec<Result<(), String>>, Failure> {
        let unavailable = |error: Error| Failure::Unavailable(chain(&error));
        let mut publisher = match self.publisher.take() {
            Some(publisher) if publisher.session.connected() => publisher,
            _ => Publisher::open(&self.connector).await.map_err(unavailable)?,
        };
        let results = match timeout(PUBLISH_TIMEOUT, publisher.publish_all(letters)).await {
            Ok(Ok(results)) => results,
            Ok(Err(error @ Error::Amqp(_))) => return Err(Failure::ByALetter(chain(&error))),
            Ok(Err(error)) => return Err(unavailable(error)),
            Err(_) => {
                return Err(Failure::Unavailable(
                    "the broker takes no messages for now".to_owned(),
                ));
            }
        };
        // After a failure it connects anew: a channel whose queue was full goes on refusing after a policy has made room (RabbitMQ 3.10, quorum
        // queue).
        if results.iter().all(Result::is_ok) {
            self.publisher = Some(publisher);
        }
        let published = |result: Result<(), Unconfirmed>| result.map_err(|reason| reason.to_string());
        Ok(results.into_iter().map(published).collect())
    }
}
