//! Times as clients see them: UTC with microseconds and `Z`, the precision that PostgreSQL keeps.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const RFC_3339_MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// For example `2026-11-23T15:37:32.531853Z`: RFC 3339, always with six decimals.
#[must_use]
pub fn rfc3339_micros(time: OffsetDateTime) -> String {
    // Formatting fails only where a component is missing, and a time with an offset has them all.
    time.to_offset(UtcOffset::UTC)
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
}
