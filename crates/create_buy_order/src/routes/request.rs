//! The body of `PUT /buy_order`: its schema and its reader, which names every fault at once.

use common::http::{BodyFields, FieldFault, Problem, field};
use common::money::{Currency, FiatAmount, MoneyError};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use uuid::Uuid;

/// An order to buy BTC.
#[derive(Debug, ToSchema)]
pub(crate) struct BuyOrderRequest {
    #[schema(inline)]
    pub(super) currency: Currency,
    #[schema(schema_with = text_or_number)]
    pub(super) amount: FiatAmount,
    /// The client's name for this one order.
    #[schema(example = "5fa733ae-82b4-4ac0-8478-35ff30dae879")]
    pub(super) idempotence_key: Uuid,
}

impl BuyOrderRequest {
    /// Reads each field from its literal JSON, so that no number passes through a float.
    pub(super) fn read(mut body: BodyFields) -> Result<Self, Problem> {
        let currency = body.required("currency", currency);
        let decimal_places = currency.map_or(FiatAmount::SCALE, Currency::decimal_places);
        let amount = body.required("amount", |raw| amount(raw, decimal_places));
        let idempotence_key = body.required("idempotence_key", idempotence_key);
        match (currency, amount, idempotence_key) {
            (Some(currency), Some(amount), Some(idempotence_key)) => Ok(Self {
                currency,
                amount,
                idempotence_key,
            }),
            _ => Err(body.rejection()),
        }
    }
}

/// A string without sign and exponent, or a number. Both have the same bounds.
fn text_or_number() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(
        r"^0*([1-9][0-9]{0,8}(\.[0-9]{1,2})?|0\.([1-9][0-9]?|0[1-9]))$",
    ));
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .exclusive_minimum(Some(0))
        .exclusive_maximum(Some(1_000_000_000))
        .multiple_of(Some(0.01));
    OneOfBuilder::new()
        .item(text)
        .item(number)
        .description(Some(
            "Greater than 0, below 1,000,000,000, with at most 2 decimals and no exponent. A JSON number is taken by its literal digits.",
        ))
        .examples([serde_json::Value::from("123.45")])
        .into()
}

/// The text of a JSON string.
fn string(raw: &RawValue) -> Result<String, FieldFault> {
    serde_json::from_str(raw.get())
        .map_err(|_| FieldFault::new("string_type", "Input should be a valid string"))
}

fn currency(raw: &RawValue) -> Result<Currency, FieldFault> {
    let iso3 = string(raw)?;
    Currency::parse(&iso3).ok_or_else(|| {
        let supported = Currency::supported();
        FieldFault::value_error(&format!("unsupported currency.  supported: {supported}"))
    })
}

fn amount(raw: &RawValue, decimal_places: u32) -> Result<FiatAmount, FieldFault> {
    let is_number = raw
        .get()
        .starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let text = if is_number {
        raw.get().to_owned()
    } else {
        string(raw)?
    };
    let amount: FiatAmount = text
        .parse()
        .map_err(|error| amount_fault(error, decimal_places))?;
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if u32::try_from(decimals).is_ok_and(|decimals| decimals <= decimal_places) {
        Ok(amount)
    } else {
        Err(amount_fault(MoneyError::TooManyDecimals, decimal_places))
    }
}

fn amount_fault(error: MoneyError, decimal_places: u32) -> FieldFault {
    match error {
        MoneyError::NotADecimal => FieldFault::new("decimal_parsing", "Input should be a valid decimal"),
        MoneyError::NotPositive => FieldFault::value_error("amount must be greater than 0"),
        MoneyError::TooLarge => FieldFault::value_error("amount must be less than 1000000000"),
        MoneyError::TooManyDecimals => FieldFault::value_error(&format!(
            "amount must have no more than {decimal_places} decimals"
        )),
    }
}

fn idempotence_key(raw: &RawValue) -> Result<Uuid, FieldFault> {
    let text = string(raw)
        .map_err(|_| FieldFault::new("uuid_type", "UUID input should be a string, bytes or UUID object"))?;
    field::uuid(&text)
}
