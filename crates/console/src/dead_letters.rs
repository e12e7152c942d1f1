//! The dead letters that projectors tell of.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How many are shown.
const MAX_SHOWN: usize = 20;

/// A message that could not be projected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeadLetter {
    /// When: RFC 3339, UTC, microseconds.
    pub(crate) failed_at: String,
    /// The id that the publisher gave to the message.
    pub(crate) message_id: Option<String>,
    /// The type that the publisher gave to the message.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// Why it could not be projected.
    pub(crate) reason: String,
}

/// Those that several projectors tell of, newest first.
pub(crate) fn newest<'l>(told: impl IntoIterator<Item = &'l DeadLetter>) -> Vec<DeadLetter> {
    let mut all: Vec<DeadLetter> = told.into_iter().cloned().collect();
    all.sort_by(|one, other| {
        let key = |letter: &DeadLetter| Reverse(letter.failed_at.clone());
        key(one).cmp(&key(other))
    });
    all.truncate(MAX_SHOWN);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_all_projectors_come_first() {
        let letter = |second: usize| DeadLetter {
            failed_at: format!("2026-11-28T23:40:{second:02}.000000Z"),
            message_id: None,
            kind: None,
            reason: String::new(),
        };
        let told: Vec<DeadLetter> = (0..15).chain(10..40).map(letter).collect();
        let newest = newest(&told);
        let times: Vec<&str> = newest.iter().map(|letter| &letter.failed_at[17..19]).collect();
        assert_eq!((times.len(), times[0], times[19]), (20, "39", "20"));
    }
}
