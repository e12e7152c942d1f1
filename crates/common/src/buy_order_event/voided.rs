//! An order was voided.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::fields::{read_id, read_reason, read_time};
use crate::timestamp;

/// An order was voided: an operator took it out of the book. Its fields are the columns of `buy_order_void_read_model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuyOrderVoided {
    /// `buy_order.id` of the write model: which order.
    #[serde(deserialize_with = "read_id")]
    #[schema(minimum = 1)]
    pub id: i64,
    /// The id of that order that clients see.
    pub external_id: Uuid,
    /// Why, in the operator's words: up to 500 characters, none of them a control character.
    #[serde(deserialize_with = "read_reason")]
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
    /// When the void was written, with microseconds.
    #[serde(
        serialize_with = "timestamp::serialize_rfc3339_micros",
        deserialize_with = "read_time"
    )]
    pub voided_at: OffsetDateTime,
}

crate::from_row!(BuyOrderVoided {
    id,
    external_id,
    reason,
    voided_at
});

impl BuyOrderVoided {
    /// The `type` property of the message.
    pub const MESSAGE_TYPE: &str = "buy_order_voided";
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;

    /// The time ends with a zero, because all six decimals are written.
    pub(crate) const GOLDEN: &str = concat!(
        r#"{"id":7,"external_id":"3b14efb6-041f-4d31-b35a-37c82333af36","reason":"fat finger","#,
        r#""voided_at":"2026-11-28T15:37:32.531850Z"}"#
    );

    fn golden() -> BuyOrderVoided {
        BuyOrderVoided {
            id: 7,
            external_id: uuid!("3b14efb6-041f-4d31-b35a-37c82333af36"),
            reason: "fat finger".to_owned(),
            voided_at: datetime!(2026-11-28 15:37:32.531850 UTC),
        }
    }

    fn read(json: &str) -> Result<BuyOrderVoided, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn with_reason(reason: &str) -> Result<BuyOrderVoided, String> {
        let quoted = serde_json::Value::from(reason).to_string();
        read(&GOLDEN.replace(r#""fat finger""#, &quoted))
    }

    #[test]
    fn the_message_is_written_and_read_as_agreed() {
        assert_eq!(serde_json::to_string(&golden()).unwrap(), GOLDEN);
        assert_eq!(read(GOLDEN), Ok(golden()));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let json = GOLDEN.replacen('{', r#"{"a_later_field":{"x":[1]},"#, 1);
        assert_eq!(read(&json), Ok(golden()));
    }

    #[test]
    fn a_time_with_another_offset_is_the_same_time() {
        let json = GOLDEN.replace("15:37:32.531850Z", "16:37:32.531850999+01:00");
        assert_eq!(read(&json), Ok(golden()));
    }

    #[test]
    fn a_reason_is_kept_as_it_was_given() {
        for reason in [
            "x",
            "\"quotes\", a \\ and a | in it",
            " blanks around ",
            "größer als 1 ₿ 🚀",
            "\u{a0}\u{2003}",
            &"🚀".repeat(500),
        ] {
            assert_eq!(
                with_reason(reason).map(|event| event.reason),
                Ok(reason.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_reason_is_refused() {
        for reason in [
            "",
            " ",
            "  ",
            "with\0zero",
            "two\nlines",
            "a\ttab",
            "an \u{1b}[31mescape",
            "\u{7f}",
            "\u{85}",
            &"🚀".repeat(501),
        ] {
            assert!(with_reason(reason).is_err(), "{reason:?}");
        }
    }

    #[test]
    fn what_the_read_model_could_not_keep_exactly_is_refused() {
        for (part, broken) in [
            (r#""id":7,"#, ""),
            (r#""id":7"#, r#""id":0"#),
            (r#""id":7"#, r#""id":-9223372036854775808"#),
            (r#""id":7"#, r#""id":9223372036854775808"#),
            (r#""id":7"#, r#""id":1.5"#),
            (r#""id":7"#, r#""id":"7""#),
            ("3b14efb6", "xyz"),
            (r#""fat finger""#, "null"),
            (r#""fat finger""#, "7"),
            (r#""fat finger""#, r#"["fat finger"]"#),
            (r#""fat finger""#, r#""\ud800""#),
            (r#""reason":"fat finger","#, ""),
            ("2026-11-28T15:37:32.531850Z", "9999-12-31T23:59:59-01:00"),
            ("2026-11-28T15:37:32.531850Z", "1970-01-01T00:59:59+01:00"),
            ("2026-11-28T15:37:32.531850Z", "2026-11-28T15:37:32.531850"),
        ] {
            let json = GOLDEN.replacen(part, broken, 1);
            assert_ne!(json, GOLDEN);
            assert!(read(&json).is_err(), "{json}");
        }
    }
}
