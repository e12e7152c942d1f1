//! `GET /dead_letters`, for operators: the last dead letters that this process sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use common::broker::Outgoing;
use lapin::types::{AMQPValue, FieldTable};
use serde::Serialize;
use utoipa::ToSchema;

use crate::dead_letter_format::{LAST_FAILED_AT, REASON};

/// How many are kept.
const MAX_KEPT: usize = 20;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecentLetters(Arc<Mutex<VecDeque<RecentLetter>>>);

/// A message that could not be projected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct RecentLetter {
    /// When: RFC 3339, UTC, microseconds.
    #[schema(format = DateTime, example = "2026-11-23T15:37:32.531853Z")]
    failed_at: String,
    /// The id that the publisher gave to the message.
    message_id: Option<String>,
    /// The type that the publisher gave to the message.
    #[serde(rename = "type")]
    #[schema(example = "buy_order_created")]
    kind: Option<String>,
    /// Why it could not be projected.
    reason: String,
}

/// The last dead letters of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentLettersAnswer {
    /// Newest first, at most 20, since the start of the process.
    recent: Vec<RecentLetter>,
}

impl RecentLetters {
    /// Adds a letter that the broker has confirmed.
    pub(crate) fn add(&self, letter: &Outgoing) {
        let properties = &letter.properties;
        let header = |name| {
            let headers = properties.headers().as_ref();
            headers
                .and_then(|headers| text(headers, name))
                .unwrap_or_default()
        };
        let mut letters = self.locked();
        letters.truncate(MAX_KEPT - 1);
        letters.push_front(RecentLetter {
            failed_at: header(LAST_FAILED_AT),
            message_id: properties.message_id().as_ref().map(ToString::to_string),
            kind: properties.kind().as_ref().map(ToString::to_string),
            reason: header(REASON),
        });
    }

    /// The route that shows them.
    pub(crate) fn route(&self) -> Router {
        Router::new().route("/dead_letters", get(dead_letters).with_state(self.clone()))
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<RecentLetter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// The last dead letters
///
/// Those that this process has sent since its start, at most 20. `read_model_sync dead-letters list` shows all that are in the queue.
#[utoipa::path(
    get,
    path = "/dead_letters",
    tag = "health",
    responses((status = 200, description = "The letters, newest first", body = RecentLettersAnswer))
)]
pub(crate) async fn dead_letters(State(letters): State<RecentLetters>) -> Json<RecentLettersAnswer> {
    let recent = letters.locked().iter().cloned().collect();
    Json(RecentLettersAnswer { recent })
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;
    use crate::dead_letter_format::tests::dead;

    #[test]
    fn the_newest_letters_are_kept_with_their_reasons() {
        let letters = RecentLetters::default();
        for number in 0..25 {
            let properties = BasicProperties::default()
                .with_message_id(format!("m{number}").into())
                .with_type("buy_order_created".into());
            letters.add(&dead(properties, "", &format!("because {number}")));
        }
        let kept = letters.locked();
        let newest = kept.front();
        assert_eq!(kept.len(), MAX_KEPT);
        assert_eq!(newest.map(|letter| letter.reason.as_str()), Some("because 24"));
        assert_eq!(
            kept.back().map(|letter| letter.reason.as_str()),
            Some("because 5")
        );
        let newest = newest.cloned();
        assert_eq!(
            newest.as_ref().and_then(|letter| letter.message_id.as_deref()),
            Some("m24")
        );
        assert_eq!(
            newest.as_ref().and_then(|letter| letter.kind.as_deref()),
            Some("buy_order_created")
        );
        assert!(newest.is_some_and(|letter| letter.failed_at.ends_with('Z')));
        drop(kept);
        letters.add(&Outgoing {
            exchange: String::new(),
            routing_key: String::new(),
            properties: BasicProperties::default(),
            body: Vec::new(),
        });
        assert_eq!(
            letters.locked().front().map(|letter| letter.reason.clone()),
            Some(String::new())
        );
    }
}
