//! What is promised of every message of the queue.

use lapin::BasicProperties;
use lapin::message::Delivery;

use super::{Event, MAX_BODY_BYTES, read};
use crate::dead_letter_format::dead_letter;

/// A small frame, in bytes.
const FRAME_MAX: usize = 4096;

/// The first line of `data` is the type of the message. A message that is read is of a known type, and its event is read the same when it is
/// written again. One that is refused becomes a dead letter, which has its body and a reason that fits.
///
/// # Panics
///
/// If that is not so.
pub fn message(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let (kind, body) = data.split_at(line);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    // A short string has 255 bytes at most.
    let kind = String::from_utf8_lossy(&kind[..kind.len().min(80)]).into_owned();
    let message = |body: Vec<u8>| {
        let mut message = Delivery::mock(1, "pydist".into(), "buy_order".into(), false, body);
        message.properties = BasicProperties::default().with_type(kind.as_str().into());
        message
    };
    match read(&message(body.to_vec())) {
        Ok(event) => {
            assert!(body.len() <= MAX_BODY_BYTES);
            let written = match &event {
                Event::Created(order) => {
                    assert!(matches!(kind.as_str(), "" | "buy_order_created"));
                    serde_json::to_vec(order)
                }
                Event::Voided(void) => {
                    assert_eq!(kind, "buy_order_voided");
                    serde_json::to_vec(void)
                }
            };
            assert_eq!(read(&message(written.unwrap())), Ok(event));
        }
        Err(reason) => {
            assert!(!reason.is_empty());
            let letter = dead_letter(message(body.to_vec()), "pydist", "buy_order", &reason, FRAME_MAX);
            assert_eq!(letter.body, body);
            let headers = letter.properties.headers().clone().unwrap_or_default();
            let bytes: usize = headers
                .inner()
                .iter()
                .map(|(name, value)| name.as_str().len() + format!("{value:?}").len())
                .sum();
            assert!(bytes < FRAME_MAX, "{bytes} bytes of headers");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("message", super::message);
    }
}
