//! How the fields of both messages are read and written.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::money::{BtcAmount, BtcRate, FiatAmount, parse_decimal};

pub(super) fn write_decimal<T: fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads `"123.45"`, `123.45`, `2e-05` and `"2E-5"` exactly.
pub(super) fn read_decimal<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr,
    T::Err: fmt::Display,
    D: Deserializer<'de>,
{
    let raw: Box<RawValue> = Deserialize::deserialize(deserializer)?;
    let json = raw.get();
    let text: Cow<'_, str> = match json.as_bytes().first() {
        Some(b'"') => Cow::Owned(serde_json::from_str(json).map_err(D::Error::custom)?),
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(json),
        _ => return Err(D::Error::custom("expected a decimal as a string or a number")),
    };
    let plain = without_exponent(&text).ok_or_else(|| D::Error::custom("not a decimal number"))?;
    plain
        .parse()
        .map_err(|error| D::Error::custom(format_args!("{error}: {plain:.40}")))
}

/// Writes `1.5e-3` as `0.0015`, because Python writes small numbers with an exponent. No digit is lost or rounded.
fn without_exponent(text: &str) -> Option<Cow<'_, str>> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Some(Cow::Borrowed(text));
    };
    // `from_scientific` accepts more forms, and rounds a mantissa that a decimal cannot hold.
    parse_decimal(mantissa).ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    let decimal = Decimal::from_scientific(&format!("{mantissa}e{exponent}")).ok()?;
    Some(Cow::Owned(decimal.to_string()))
}

/// Reads RFC 3339 with any offset, truncated to microseconds, which PostgreSQL keeps. Refuses years that an order cannot have: an offset may lead to
/// a year that RFC 3339 cannot write.
pub(super) fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text: Cow<'de, str> = Deserialize::deserialize(deserializer)?;
    let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
    let time = time
        .checked_to_offset(UtcOffset::UTC)
        .filter(|time| (1970..=9999).contains(&time.year()))
        .ok_or_else(|| D::Error::custom(format_args!("not in the years 1970 to 9999: {text:?}")))?;
    time.replace_microsecond(time.microsecond())
        .map_err(D::Error::custom)
}

/// An id from a database sequence: 1 or higher.
pub(super) fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let id: i64 = Deserialize::deserialize(deserializer)?;
    if id >= 1 {
        Ok(id)
    } else {
        Err(D::Error::custom(format_args!("not an id: {id}")))
    }
}

pub(super) fn read_iso3<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text: String = Deserialize::deserialize(deserializer)?;
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("not an ISO 4217 code: {text:?}")))
    }
}

/// The maximum length of the reason of a void.
pub const MAX_REASON_CHARACTERS: usize = 500;

/// Whether a text can be the reason of a void: 1 to 500 characters, not all of them spaces, none of them a control character. The check
/// constraints of both models say the same. A log shows such a text on one line.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    let is_short = text.chars().nth(MAX_REASON_CHARACTERS).is_none();
    is_short && !text.trim_matches(' ').is_empty() && !text.chars().any(char::is_control)
}

pub(super) fn read_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text: String = Deserialize::deserialize(deserializer)?;
    if is_reason(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!(
            "not a reason of 1 to {MAX_REASON_CHARACTERS} characters: {text:.40?}"
        )))
    }
}

pub(super) fn fiat_amount_schema() -> Schema {
    decimal_schema(
        "What the client pays, in `currency_iso3`.",
        FiatAmount::BOUND,
        FiatAmount::SCALE,
    )
}

pub(super) fn btc_rate_schema() -> Schema {
    decimal_schema(
        "The price of one BTC, in `currency_iso3`.",
        BtcRate::BOUND,
        BtcRate::SCALE,
    )
}

pub(super) fn btc_amount_schema() -> Schema {
    decimal_schema("The BTC bought.", BtcAmount::BOUND, BtcAmount::SCALE)
}

/// A decimal below `bound`, which is a power of 10: a string with all decimals, as it is sent now, or a number, as the original sent it.
fn decimal_schema(description: &str, bound: u64, decimals: u32) -> Schema {
    let digits = bound.ilog10();
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(r"^[0-9]{{1,{digits}}}\.[0-9]{{{decimals}}}$")));
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .exclusive_minimum(Some(0))
        .exclusive_maximum(Some(bound));
    let either = OneOfBuilder::new().item(text).item(number);
    either.description(Some(description)).into()
}
