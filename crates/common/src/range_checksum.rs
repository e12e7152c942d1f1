//! How the two models are compared: by one checksum for each range of order ids, computed by PostgreSQL. A process of each model computes its
//! own, and an operator's pipe carries them from one to the other, so that each process connects only to its own database.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

/// The orders of a range of ids: their number and the SHA-256 of their content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeChecksum {
    /// The first id of the range.
    pub from_id: i64,
    /// The last id of the range.
    pub to_id: i64,
    /// The number of orders in the range.
    pub orders: i64,
    /// SHA-256 in hexadecimal digits, over one line per order, in the order of ids.
    pub checksum: String,
    /// The same over id and external id only: tells whether they are the same orders, whatever their other fields.
    pub identities: String,
    /// Voids until then, in microseconds since 1970 by the clock of the write model, are part of the content. Later ones may be on their way.
    pub voids_to_epoch_us: i64,
}

crate::from_row!(RangeChecksum {
    from_id,
    to_id,
    orders,
    checksum,
    identities,
    voids_to_epoch_us
});

/// Follows the last range. Without it the input is truncated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The number of ranges.
    pub ranges: u64,
    /// The number of orders in all ranges.
    pub orders: i64,
    /// The highest id when the process began; 0 when there was no order.
    pub last_id: i64,
    /// That time, by the clock of the write model, in microseconds since 1970. Every order after `last_id` is younger.
    pub as_of_epoch_us: i64,
}

/// A line of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// One for each range, in the order of ids, without gaps.
    Range(RangeChecksum),
    /// The last line.
    End(End),
}

/// The checksum of the orders from `from_id` to `to_id`, both included, with their voids until `voids_to_epoch_us`.
///
/// `orders` is a query that returns the columns named in the statement below, and maybe others. `void_reason` and `voided_at` are null where
/// an order is not voided; its line is then the same as it would be without these columns. The models may differ in types and scales: a
/// time is written as microseconds since 1970, a decimal without trailing zeros, and a text without trailing blanks.
///
/// # Errors
/// When the database is away, or the query lacks a column.
pub async fn of_range(
    connection: &mut PgConnection,
    orders: &'static str,
    from_id: i64,
    to_id: i64,
    voids_to_epoch_us: i64,
) -> sqlx::Result<RangeChecksum> {
    let statement = format!(
        "WITH line AS (
             SELECT id, concat_ws('|', id, external_id) AS identity,
                    concat_ws('|', id, client_id, external_id, trim_scale(extract(epoch FROM created_at) * 1000000), currency_id,
                              currency_iso3::text, trim_scale(currency_amount), trim_scale(btc_rate), trim_scale(btc_amount),
                              CASE WHEN extract(epoch FROM voided_at) * 1000000 <= $3
                                   THEN concat('void|', void_reason, '|', trim_scale(extract(epoch FROM voided_at) * 1000000)) END) AS text
             FROM ({orders}) AS orders
             WHERE id BETWEEN $1::bigint AND $2::bigint
         )
         SELECT $1 AS from_id, $2 AS to_id, count(*) AS orders,
                encode(sha256(convert_to(coalesce(string_agg(text, E'\\n' ORDER BY id), ''), 'UTF8')), 'hex') AS checksum,
                encode(sha256(convert_to(coalesce(string_agg(identity, E'\\n' ORDER BY id), ''), 'UTF8')), 'hex') AS identities,
                $3 AS voids_to_epoch_us
         FROM line"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(from_id)
        .bind(to_id)
        .bind(voids_to_epoch_us)
        .fetch_one(connection)
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_two_kinds_of_line_are_distinguished() {
        for json in [
            r#"{"from_id":1,"to_id":3,"orders":2,"checksum":"ab","identities":"cd","voids_to_epoch_us":4}"#,
            r#"{"ranges":1,"orders":2,"last_id":3,"as_of_epoch_us":4}"#,
        ] {
            let line: Line = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
        }
        assert!(serde_json::from_str::<Line>("{}").is_err());
    }
}
