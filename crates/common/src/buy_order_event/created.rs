//! An order was created.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::fields::{
    btc_amount_schema, btc_rate_schema, fiat_amount_schema, read_decimal, read_id, read_iso3, read_time,
    write_decimal,
};
use crate::money::{BtcAmount, BtcRate, FiatAmount};
use crate::timestamp;

/// An order was created. Its fields are the columns of the read model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuyOrderCreated {
    /// `buy_order.id` of the write model.
    #[serde(deserialize_with = "read_id")]
    #[schema(minimum = 1)]
    pub id: i64,
    /// `client.id` of the write model.
    #[serde(deserialize_with = "read_id")]
    #[schema(minimum = 1)]
    pub client_id: i64,
    /// The id that clients see.
    pub external_id: Uuid,
    /// When the order was written, with microseconds.
    #[serde(
        serialize_with = "timestamp::serialize_rfc3339_micros",
        deserialize_with = "read_time"
    )]
    pub created_at: OffsetDateTime,
    /// `currency.id` of the write model.
    #[serde(deserialize_with = "read_id")]
    #[schema(minimum = 1)]
    pub currency_id: i64,
    /// ISO 4217: three capital letters. Not an enumeration: the write model alone decides which currencies exist.
    #[serde(deserialize_with = "read_iso3")]
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency_iso3: String,
    /// What the client pays, in `currency_iso3`.
    #[serde(serialize_with = "write_decimal", deserialize_with = "read_decimal")]
    #[schema(schema_with = fiat_amount_schema)]
    pub currency_amount: FiatAmount,
    /// The price of one BTC, in `currency_iso3`.
    #[serde(serialize_with = "write_decimal", deserialize_with = "read_decimal")]
    #[schema(schema_with = btc_rate_schema)]
    pub btc_rate: BtcRate,
    /// The BTC bought.
    #[serde(serialize_with = "write_decimal", deserialize_with = "read_decimal")]
    #[schema(schema_with = btc_amount_schema)]
    pub btc_amount: BtcAmount,
}

crate::from_row!(BuyOrderCreated {
    id,
    client_id,
    external_id,
    created_at,
    currency_id,
    currency_iso3,
    currency_amount,
    btc_rate,
    btc_amount
});

impl BuyOrderCreated {
    /// The `type` property of the message.
    pub const MESSAGE_TYPE: &str = "buy_order_created";
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;

    /// The time ends with a zero, because all six decimals are written.
    pub(crate) const GOLDEN: &str = concat!(
        r#"{"id":1,"client_id":1,"external_id":"3b14efb6-041f-4d31-b35a-37c82333af36","#,
        r#""created_at":"2026-11-23T15:37:32.531850Z","currency_id":1,"currency_iso3":"USD","#,
        r#""currency_amount":"123.45","btc_rate":"48478.88000000","btc_amount":"0.00254647"}"#
    );

    fn golden() -> BuyOrderCreated {
        BuyOrderCreated {
            id: 1,
            client_id: 1,
            external_id: uuid!("3b14efb6-041f-4d31-b35a-37c82333af36"),
            created_at: datetime!(2026-11-23 15:37:32.531850 UTC),
            currency_id: 1,
            currency_iso3: "USD".to_owned(),
            currency_amount: "123.45".parse().unwrap(),
            btc_rate: "48478.88".parse().unwrap(),
            btc_amount: "0.00254647".parse().unwrap(),
        }
    }

    fn read(json: &str) -> Result<BuyOrderCreated, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn the_message_is_written_and_read_as_agreed() {
        assert_eq!(serde_json::to_string(&golden()).unwrap(), GOLDEN);
        assert_eq!(read(GOLDEN), Ok(golden()));
    }

    #[test]
    fn json_numbers_are_read_by_their_digits() {
        let json = GOLDEN
            .replace(r#""123.45""#, "123.45")
            .replace(r#""48478.88000000""#, "48478.88")
            .replace(r#""0.00254647""#, "0.00254647");
        assert_eq!(read(&json), Ok(golden()));
        // A float would round this to 1000000000000.
        let json = GOLDEN.replace(r#""48478.88000000""#, "999999999999.99999999");
        assert_eq!(
            read(&json).map(|event| event.btc_rate.to_string()),
            Ok("999999999999.99999999".to_owned())
        );
    }

    #[test]
    fn pythons_small_numbers_are_read_exactly() {
        for (number, exact) in [
            ("2e-05", "0.00002000"),
            ("1e-08", "0.00000001"),
            ("\"1E-8\"", "0.00000001"),
            ("1.5e-3", "0.00150000"),
            ("12.5e-3", "0.01250000"),
            ("1.25e1", "12.50000000"),
            ("1e2", "100.00000000"),
            ("1E+1", "10.00000000"),
            ("0.00000001", "0.00000001"),
        ] {
            let json = GOLDEN.replace(r#""0.00254647""#, number);
            assert_eq!(
                read(&json).map(|event| event.btc_amount.to_string()),
                Ok(exact.to_owned()),
                "{number}"
            );
        }
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
    fn what_the_read_model_could_not_keep_exactly_is_refused() {
        for (part, broken) in [
            (r#""123.45""#, r#""123.456""#),
            (r#""123.45""#, r#""0""#),
            (r#""123.45""#, "-1"),
            (r#""123.45""#, "1e29"),
            (r#""123.45""#, "1e-29"),
            (r#""123.45""#, "1e2147483647"),
            (r#""123.45""#, "1e-2147483648"),
            (r#""123.45""#, r#""1e-2147483648""#),
            (r#""123.45""#, "1e-99999999999"),
            (r#""123.45""#, r#""e5""#),
            (r#""123.45""#, r#"".5e1""#),
            (r#""123.45""#, r#""1e""#),
            (r#""123.45""#, r#""NaN""#),
            (r#""123.45""#, "null"),
            (r#""123.45""#, "[1]"),
            (r#""123.45""#, "true"),
            (r#""USD""#, r#""usd""#),
            (r#""USD""#, r#""USDX""#),
            (r#""USD""#, "840"),
            (r#""id":1"#, r#""id":1.5"#),
            (r#""id":1"#, r#""id":9223372036854775808"#),
            (r#""id":1,"#, ""),
            (r#""id":1"#, r#""id":0"#),
            (r#""client_id":1"#, r#""client_id":-9223372036854775808"#),
            (r#""currency_id":1"#, r#""currency_id":0"#),
            ("2026-11-23T15:37:32.531850Z", "9999-12-31T23:59:59-01:00"),
            ("2026-11-23T15:37:32.531850Z", "0000-01-01T00:00:00+01:00"),
            ("2026-11-23T15:37:32.531850Z", "0001-01-01T00:00:00Z"),
            ("2026-11-23T15:37:32.531850Z", "1970-01-01T00:59:59+01:00"),
            ("2026-11-23T15:37:32.531850Z", "-001-01-01T00:00:00Z"),
            ("2026-11-23T15:37:32.531850Z", "9999-12-31T23:59:60-23:59"),
            (
                r#""2026-11-23T15:37:32.531850Z""#,
                r#""2026-11-23T15:37:32.531850""#,
            ),
            ("3b14efb6", "xyz"),
        ] {
            let json = GOLDEN.replacen(part, broken, 1);
            assert_ne!(json, GOLDEN);
            assert!(read(&json).is_err(), "{json}");
        }
    }
}
