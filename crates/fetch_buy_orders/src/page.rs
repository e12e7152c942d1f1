//! The response: a page of orders.

use common::timestamp;
use compact_str::CompactString;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An order as clients see it. Decimals are texts with all decimals of their column. A `CompactString` holds them without an
/// allocation.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BuyOrder {
    /// The id of the order.
    #[schema(example = "3b14efb6-041f-4d31-b35a-37c82333af36")]
    pub id: Uuid,
    /// When the order was accepted: UTC with microseconds.
    #[schema(example = "2026-11-23T15:37:32.531853Z")]
    #[serde(serialize_with = "timestamp::serialize_rfc3339_micros")]
    pub created_at: OffsetDateTime,
    /// ISO 4217 code of `currency_amount`.
    #[schema(value_type = String, example = "USD")]
    pub currency: CompactString,
    /// What was paid, with 2 decimals.
    #[schema(value_type = String, example = "123.45")]
    pub currency_amount: CompactString,
    /// Price of one BTC in `currency`, with 8 decimals.
    #[schema(value_type = String, example = "48478.88000000")]
    pub btc_rate: CompactString,
    /// What was bought, with 8 decimals.
    #[schema(value_type = String, example = "0.00254647")]
    pub btc_amount: CompactString,
}

/// A page of orders, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page {
    /// The orders; none when there are no older ones.
    pub rows: Vec<BuyOrder>,
    /// The id of the last row, to be passed on for the next page; `null` when there are no rows.
    #[schema(required, example = "3b14efb6-041f-4d31-b35a-37c82333af36")]
    pub last_reference: Option<Uuid>,
}

impl Page {
    /// The page with these rows.
    #[must_use]
    pub fn of(rows: Vec<BuyOrder>) -> Self {
        Self {
            last_reference: rows.last().map(|order| order.id),
            rows,
        }
    }

    /// The `Link` to the next page, when this one is full. Its URL is relative to the request, so that it is valid behind a proxy that strips
    /// a prefix.
    #[must_use]
    pub fn next(&self, page_size: u32) -> Option<String> {
        let is_full = u32::try_from(self.rows.len()).is_ok_and(|rows| rows >= page_size);
        self.last_reference
            .filter(|_| is_full)
            .map(|last| format!("<?last_reference={last}&page_size={page_size}>; rel=\"next\""))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn order(id: u128) -> BuyOrder {
        BuyOrder {
            id: Uuid::from_u128(id),
            created_at: datetime!(2026-11-23 16:37:32.5 +1),
            currency: "USD".into(),
            currency_amount: "1.00".into(),
            btc_rate: "48478.88000000".into(),
            btc_amount: "0.00002063".into(),
        }
    }

    #[test]
    fn times_are_utc_with_six_digits_even_when_they_end_in_zeros() -> serde_json::Result<()> {
        let json = serde_json::to_value(order(1))?;
        assert_eq!(
            json.get("created_at"),
            Some(&"2026-11-23T15:37:32.500000Z".into())
        );
        Ok(())
    }

    #[test]
    fn only_a_full_page_has_a_next() {
        let page = Page::of(vec![order(1), order(2)]);
        assert_eq!(page.last_reference, Some(Uuid::from_u128(2)));
        assert_eq!(page.next(3), None);
        assert_eq!(
            page.next(2).as_deref(),
            Some("<?last_reference=00000000-0000-0000-0000-000000000002&page_size=2>; rel=\"next\"")
        );
    }

    #[test]
    fn a_page_without_rows_has_a_null_reference() -> serde_json::Result<()> {
        assert_eq!(
            serde_json::to_string(&Page::of(Vec::new()))?,
            r#"{"rows":[],"last_reference":null}"#
        );
        Ok(())
    }
}
