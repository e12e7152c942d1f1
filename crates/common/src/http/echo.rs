//! How an answer shows a value that a client sent.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// A value of our own, for example a text that was no JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// Replaces each unpaired surrogate by U+FFFD. JSON allows these escapes, but they are not text, and many parsers refuse a whole answer that
/// holds one.
pub(super) fn readable(value: &RawValue) -> Box<RawValue> {
    let mut readable = String::with_capacity(value.get().len());
    let mut rest = value.get();
    while let Some((before, escape)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        readable.push_str(before);
        let following = escape.get(6..).unwrap_or_default();
        let (kept, length) = match (code_unit(escape), code_unit(following)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (true, 12),
            (Some(0xd800..=0xdfff), _) => (false, 6),
            (Some(_), _) => (true, 6),
            (None, _) => (true, 2),
        };
        let (escape, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        readable.push_str(if kept { escape } else { "\\ufffd" });
        rest = after;
    }
    readable.push_str(rest);
    RawValue::from_string(readable).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The UTF-16 code unit of an escape like `\\u00e4`.
fn code_unit(escape: &str) -> Option<u16> {
    u16::from_str_radix(escape.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_nothing_else() -> serde_json::Result<()> {
        for (sent, shown) in [
            (r#"{"a":[1.50,"\u00e4\n\\ud800"]}"#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (
                r#"{"\ude00\ud83d":"\ud83d\ud83d\ude00x"}"#,
                Some(r#"{"\ufffd\ufffd":"\ufffd\ud83d\ude00x"}"#),
            ),
            (r#""\ud83dabcdef\ude00""#, Some(r#""\ufffdabcdef\ufffd""#)),
        ] {
            let shown_again = readable(&RawValue::from_string(sent.to_owned())?);
            assert_eq!(shown_again.get(), shown.unwrap_or(sent));
            assert!(serde_json::from_str::<serde_json::Value>(shown_again.get()).is_ok());
        }
        Ok(())
    }
}
