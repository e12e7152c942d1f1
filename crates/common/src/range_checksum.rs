//! What the two models are compared by: one checksum for each range of order ids, computed by PostgreSQL. Each model computes its own, and
//! an operator's pipe carries them from one to the other, so that each process sees only its own database.

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection};

/// The orders of a range of ids: how many there are, and the SHA-256 of what they say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeChecksum {
    /// The first id of the range.
    pub from_id: i64,
    /// The last id of the range.
    pub to_id: i64,
    /// How many orders have an id in the range.
    pub orders: i64,
    /// SHA-256 in hexadecimal digits, over one line per order, in the order of their ids.
    pub checksum: String,
    /// The same over nothing but id and external id of each: whether they are the same orders, whatever else they say.
    pub identities: String,
}

/// What ends the ranges of a model: without it they were cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many ranges came before.
    pub ranges: u64,
    /// How many orders they hold.
    pub orders: i64,
    /// The highest id when the ranges were begun; 0 where there was no order.
    pub last_id: i64,
    /// When that was, by the clock of the write model, in microseconds since 1970: every order after `last_id` is younger.
    pub as_of_epoch_us: i64,
}

/// A line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// One for each range, in the order of ids, without gaps between them.
    Range(RangeChecksum),
    /// The last line.
    End(End),
}

/// The checksum of the orders from `from_id` to `to_id`, both included.
///
/// `orders` is a query of the columns `id, client_id, external_id, created_at, currency_id, currency_iso3, currency_amount, btc_rate,
/// btc_amount`. The schemas may differ in types and scales: a time counts by its microseconds since 1970, a decimal without trailing zeros,
/// and a text without trailing blanks.
///
/// # Errors
/// When the database is away, or has no such columns.
pub async fn of_range(
    connection: &mut PgConnection,
    orders: &'static str,
    from_id: i64,
    to_id: i64,
) -> sqlx::Result<RangeChecksum> {
    let statement = format!(
        "WITH line AS (
             SELECT id, concat_ws('|', id, external_id) AS identity, concat_ws('|', id, client_id, external_id, trim_scale(extract(epoch FROM created_at) * 1000000),
                                  currency_id, currency_iso3::text, trim_scale(currency_amount), trim_scale(btc_rate),
                                  trim_scale(btc_amount)) AS text
             FROM ({orders}) AS orders
             WHERE id BETWEEN $1 AND $2
         )
         SELECT count(*),
                encode(sha256(convert_to(coalesce(string_agg(text, E'\\n' ORDER BY id), ''), 'UTF8')), 'hex'),
                encode(sha256(convert_to(coalesce(string_agg(identity, E'\\n' ORDER BY id), ''), 'UTF8')), 'hex')
         FROM line"
    );
    let (orders, checksum, identities) = sqlx::query_as(AssertSqlSafe(statement))
        .bind(from_id)
        .bind(to_id)
        .fetch_one(connection)
        .await?;
    Ok(RangeChecksum {
        from_id,
        to_id,
        orders,
        checksum,
        identities,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_two_kinds_of_line_are_told_apart() {
        let range = RangeChecksum {
            from_id: 1,
            to_id: 3,
            orders: 2,
            checksum: "ab".to_owned(),
            identities: "cd".to_owned(),
        };
        let end = End {
            ranges: 1,
            orders: 2,
            last_id: 3,
            as_of_epoch_us: 4,
        };
        for line in [Line::Range(range), Line::End(end)] {
            let json = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        }
        assert!(serde_json::from_str::<Line>("{}").is_err());
    }
}
