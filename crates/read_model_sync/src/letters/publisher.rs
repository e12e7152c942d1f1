//! Publishes dead letters, on a connection of its own that is made when there is something to publish.

use std::slice;
use std::time::Duration;

use common::broker::{Error, Outgoing, Publishing, Verdict};
use common::endpoints;
use common::logging::chain;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

use super::{Fate, Letter};

/// Letters that are published together: lapin copies each into frames before it sends them.
const WINDOW: usize = 100;
const WINDOW_BYTES: usize = 256 * 1024;

/// A broker that takes messages confirms within milliseconds. One that is short of memory or disk does not take any.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection that nothing was published on for so long is closed: its buffers have grown to the largest letter, and stay so.
const IDLE: Duration = Duration::from_secs(2);

/// Until nobody sends letters any more.
pub(super) async fn run(
    queue: endpoints::Queue,
    mut letters: UnboundedReceiver<Letter>,
    fates: UnboundedSender<Fate>,
) {
    let mut publisher = Publisher {
        queue,
        publishing: None,
    };
    loop {
        let next = match timeout(IDLE, letters.recv()).await {
            Ok(next) => next,
            Err(_) => {
                publisher.close().await;
                letters.recv().await
            }
        };
        let Some(first) = next else { return };
        let mut bytes = first.message.body.len();
        let (mut tickets, mut window) = (vec![first.ticket], vec![first.message]);
        while window.len() < WINDOW && bytes < WINDOW_BYTES {
            let Ok(letter) = letters.try_recv() else { break };
            bytes += letter.message.body.len();
            tickets.push(letter.ticket);
            window.push(letter.message);
        }
        let published = publisher.publish(&window).await;
        for ((ticket, message), published) in tickets.into_iter().zip(&window).zip(published) {
            let bytes = message.body.len();
            // Nobody asks any more: the process ends.
            let _ = fates.send(Fate {
                ticket,
                bytes,
                published,
            });
        }
    }
}

struct Publisher {
    queue: endpoints::Queue,
    publishing: Option<Publishing>,
}

impl Publisher {
    async fn close(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            publishing.session.close().await;
        }
    }

    /// For each letter, why it was not published. One that ends the connection or the channel, for its size or its headers, is found by
    /// publishing each of them alone.
    async fn publish(&mut self, window: &[Outgoing]) -> Vec<Result<(), String>> {
        match self.attempt(window).await {
            Ok(verdicts) => verdicts,
            Err(Failed::ByALetter(_)) if window.len() > 1 => {
                let mut published = Vec::with_capacity(window.len());
                let mut away = None;
                for letter in window {
                    published.push(match &away {
                        None => match self.attempt(slice::from_ref(letter)).await {
                            Ok(mut verdicts) => verdicts.pop().unwrap_or(Ok(())),
                            Err(Failed::ByALetter(reason)) => Err(reason),
                            Err(Failed::Away(reason)) => Err(away.insert(reason).clone()),
                        },
                        Some(reason) => Err(reason.clone()),
                    });
                }
                published
            }
            Err(Failed::ByALetter(reason) | Failed::Away(reason)) => {
                vec![Err(reason); window.len()]
            }
        }
    }

    async fn attempt(&mut self, letters: &[Outgoing]) -> Result<Vec<Result<(), String>>, Failed> {
        let away = |error: Error| Failed::Away(chain(&error));
        let mut publishing = match self.publishing.take() {
            Some(publishing) if publishing.session.connected() => publishing,
            _ => Publishing::open(&self.queue, "read_model_sync dead letters")
                .await
                .map_err(away)?,
        };
        let published = timeout(LIMIT, publishing.publisher.publish_all(letters)).await;
        let verdicts = match published {
            Ok(Ok(verdicts)) => verdicts,
            Ok(Err(error @ Error::Amqp(_))) => return Err(Failed::ByALetter(chain(&error))),
            Ok(Err(error)) => return Err(away(error)),
            Err(_) => return Err(Failed::Away("the broker takes no messages for now".to_owned())),
        };
        // One that was returned had no queue to go to: the next connection declares it. And a channel whose queue was full goes on refusing
        // after a policy has made room (RabbitMQ 3.10, quorum queue).
        if verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed) {
            self.publishing = Some(publishing);
        }
        let published = |verdict| match verdict {
            Verdict::Confirmed => Ok(()),
            Verdict::NotConfirmed(reason) => Err(reason),
        };
        Ok(verdicts.into_iter().map(published).collect())
    }
}

/// Why nothing is known to be published.
enum Failed {
    /// The broker ended the channel or the connection, maybe for a letter.
    ByALetter(String),
    /// It was not there, or kept silent.
    Away(String),
}
