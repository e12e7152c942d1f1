//! Times as clients see them: UTC with microseconds and `Z`, the precision that PostgreSQL keeps.

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
    // Formatting fails only when a component is missing, and an `OffsetDateTime` has them all.
    time.checked_to_offset(UtcOffset::UTC)
        .unwrap_or(time)
        .format(RFC_3339_MICROSECONDS)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn microseconds_are_always_written_and_the_zone_is_utc() {
        assert_eq!(
            rfc3339_micros(datetime!(2026-11-23 16:37:32 +1)),
            "2026-11-23T15:37:32.000000Z"
        );
        assert_eq!(
            rfc3339_micros(datetime!(2026-11-23 15:37:32.531853999 UTC)),
            "2026-11-23T15:37:32.531853Z"
        );
    }

    #[test]
    fn the_last_hour_that_can_be_written_is_no_panic() {
        let text = rfc3339_micros(datetime!(9999-12-31 23:59:59 -1));
        assert!(text.starts_with("9999-12-31T23:59:59"), "{text}");
    }
}
