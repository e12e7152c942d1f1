//! The fault of one field of a request, in pydantic's terms, and parsers of types that several services need.

use serde_json::{Value, json};
use uuid::Uuid;

/// Why a field was refused: pydantic's `type`, `msg` and `ctx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    pub(super) kind: &'static str,
    pub(super) msg: String,
    pub(super) ctx: Option<Value>,
}

impl FieldFault {
    /// A fault with pydantic's `type` and a message for people.
    pub fn new(kind: &'static str, msg: impl Into<String>) -> Self {
        Self {
            kind,
            msg: msg.into(),
            ctx: None,
        }
    }

    /// Adds the values behind the message.
    #[must_use]
    pub fn with_context(mut self, ctx: Value) -> Self {
        self.ctx = Some(ctx);
        self
    }

    pub(super) fn missing() -> Self {
        Self::new("missing", "Field required")
    }

    /// A value of the right type that breaks a rule; the message ends with `reason`.
    #[must_use]
    pub fn value_error(reason: &str) -> Self {
        Self::new("value_error", format!("Value error, {reason}")).with_context(json!({ "error": reason }))
    }
}

/// Parses a UUID.
///
/// # Errors
/// `uuid_parsing`.
pub fn uuid(text: &str) -> Result<Uuid, FieldFault> {
    // Not `try_parse`, which has one message for all faults. pydantic uses this crate, too, and shows its reason.
    Uuid::parse_str(text).map_err(|error| {
        let error = error.to_string();
        FieldFault::new("uuid_parsing", format!("Input should be a valid UUID, {error}"))
            .with_context(json!({ "error": error }))
    })
}

/// Parses an integer between two bounds, both included.
///
/// # Errors
/// `int_parsing`, `greater_than_equal` or `less_than_equal`.
pub fn integer_between(text: &str, min: u32, max: u32) -> Result<u32, FieldFault> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FieldFault::new(
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer",
        ));
    }
    // What does not fit into an `i64` is out of bounds, too.
    let overflow = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    let value = text.parse().unwrap_or(overflow);
    if value < i64::from(min) {
        let msg = format!("Input should be greater than or equal to {min}");
        return Err(FieldFault::new("greater_than_equal", msg).with_context(json!({ "ge": min })));
    }
    match u32::try_from(value) {
        Ok(value) if value <= max => Ok(value),
        _ => {
            let msg = format!("Input should be less than or equal to {max}");
            Err(FieldFault::new("less_than_equal", msg).with_context(json!({ "le": max })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<u32, &'static str> {
        integer_between(text, 1, 1000).map_err(|fault| fault.kind)
    }

    /// Pydantic 2.14's messages.
    #[test]
    fn a_malformed_uuid_is_refused_with_the_reason_that_pydantic_gives() {
        for (text, reason) in [
            ("", "invalid length: found 0"),
            ("5x", "invalid character: found `x` at 1"),
            (
                " 5fa733ae-82b4-4ac0-8478-35ff30dae879",
                "invalid character: found ` ` at 0",
            ),
            (
                "5fa733ae-82b4-4ac0-8478-35ff30daeé",
                "invalid character: found `é` at 33",
            ),
            (
                "5fa733ae_82b4_4ac0_8478_35ff30dae879",
                "invalid character: found `_` at 8",
            ),
            (
                "{5fa733ae-82b4-4ac0-8478-35ff30dae879",
                "invalid character: found `{` at 0",
            ),
            ("urn:uuid:x", "invalid character: found `x` at 9"),
            (
                "5fa733a-82b4-4ac0-8478-35ff30dae879",
                "invalid group length in group 0: expected 8, found 7",
            ),
            (
                "5fa733ae-82b4-4ac0-8478-35ff30dae87",
                "invalid group length in group 4: expected 12, found 11",
            ),
            // The version of the crate that pydantic uses counts the braces, too: "found 13".
            (
                "{5fa733ae-82b4-4ac0-8478-35ff30dae87}",
                "invalid group length in group 4: expected 12, found 11",
            ),
            (
                "5fa733ae-82b4-4ac0-8478",
                "invalid group count: expected 5, found 4",
            ),
            ("5fa733ae82b44ac0847835ff30dae87", "invalid length: found 31"),
        ] {
            let expected = FieldFault::new("uuid_parsing", format!("Input should be a valid UUID, {reason}"))
                .with_context(json!({ "error": reason }));
            assert_eq!(uuid(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn integers_are_read_within_their_bounds() {
        assert_eq!(kind("1"), Ok(1));
        assert_eq!(kind("1000"), Ok(1000));
        assert_eq!(kind("0"), Err("greater_than_equal"));
        assert_eq!(kind("-5"), Err("greater_than_equal"));
        assert_eq!(kind("1001"), Err("less_than_equal"));
        assert_eq!(kind("99999999999999999999"), Err("less_than_equal"));
        assert_eq!(kind("-99999999999999999999"), Err("greater_than_equal"));
        for text in ["", "x", "1.0", "1e2", "-", "1_0", " 1"] {
            assert_eq!(kind(text), Err("int_parsing"), "{text:?}");
        }
    }
}
