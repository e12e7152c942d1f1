//! The response: a page of orders.

use common::timestamp::rfc3339_micros;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An order as clients see it. Decimals are texts with all decimals of their column.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BuyOrder {
    /// The id of the order.
    #[schema(example = "3b14efb6-041f-4d31-b35a-37c82333af36")]
    pub id: Uuid,
    /// When the order was accepted: UTC with microseconds.
    #[schema(example = "2026-11-23T15:37:32.531853Z")]
    #[serde(serialize_with = "utc_with_microseconds")]
    pub created_at: OffsetDateTime,
    /// ISO 4217 code of `currency_amount`.
    #[schema(example = "USD")]
    pub currency: String,
    /// What was paid, with 2 decimals.
    #[schema(example = "123.45")]
    pub currency_amount: String,
    /// Price of one BTC in `currency`, with 8 decimals.
    #[schema(example = "48478.88000000")]
    pub btc_rate: String,
    /// What was bought, with 8 decimals.
    #[schema(example = "0.00254647")]
    pub btc_amount: String,
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

fn utc_with_microseconds<S: Serializer>(instant: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_micros(*instant))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn order(id: u128) -> BuyOrder {
        BuyOrder {
            id: Uuid::from_u128(id),
            created_at: datetime!(2026-11-23 16:37:32.5 +1),
            currency: "USD".to_owned(),
            currency_amount: "1.00".to_owned(),
            btc_rate: "48478.88000000".to_owned(),
            btc_amount: "0.00002063".to_owned(),
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
