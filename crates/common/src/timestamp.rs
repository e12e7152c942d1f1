//! Times as clients see them: UTC with microseconds and `Z`, the precision that PostgreSQL keeps.

use serde::Serializer;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const RFC_3339_MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// For example `2026-11-23T15:37:32.531853Z`: RFC 3339 in UTC, always with six decimals.
///
/// A time after the year 9999 in UTC keeps its own offset's hours, which is wrong by that offset but does not panic. Readers of foreign
/// times refuse such a time before it gets here.
#[must_use]
pub fn rfc3339_micros(time: OffsetDateTime) -> String {
    with_rfc3339_micros(time, str::to_owned)
}

/// Serializes as [`rfc3339_micros`], without an allocation: for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_rfc3339_micros<S: Serializer>(
    time: &OffsetDateTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    with_rfc3339_micros(*time, |text| serializer.serialize_str(text))
}

fn with_rfc3339_micros<T>(time: OffsetDateTime, take: impl FnOnce(&str) -> T) -> T {
    let time = time.checked_to_offset(UtcOffset::UTC).unwrap_or(time);
    // A year before 0 has a sign.
    let mut text = [0; "-9999-12-31T23:59:59.999999Z".len()];
    let mut rest = text.as_mut_slice();
    // Fails only when a component is missing, and an `OffsetDateTime` has them all, or when the text is full, and it is long enough.
    let written = time
        .format_into(&mut rest, RFC_3339_MICROSECONDS)
        .unwrap_or_default();
    let written = text
        .get(..written)
        .and_then(|text| std::str::from_utf8(text).ok());
    take(written.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn every_time_is_written_with_six_decimals_in_utc_or_else_in_its_own_zone() {
        for (time, text) in [
            (datetime!(2026-11-23 16:37:32 +1), "2026-11-23T15:37:32.000000Z"),
            (
                datetime!(2026-11-23 15:37:32.531853999 UTC),
                "2026-11-23T15:37:32.531853Z",
            ),
            // The longest text.
            (datetime!(-9999-01-01 0:00 UTC), "-9999-01-01T00:00:00.000000Z"),
            // In UTC this is the year 10000.
            (datetime!(9999-12-31 23:59:59 -1), "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339_micros(time), text);
        }
    }
}
