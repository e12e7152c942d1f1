//! The body of `PUT /buy_order`: its schema and its reader, which names every fault at once.

use std::str::FromStr;

use common::http::{BodyFields, FieldFault, Problem, field};
use common::money::{BtcRate, Currency, FiatAmount, MoneyError};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use uuid::Uuid;

/// An order to buy BTC.
#[derive(Debug, ToSchema)]
pub(crate) struct BuyOrderRequest {
    #[schema(inline)]
    pub(super) currency: Currency,
    #[schema(schema_with = amount_schema)]
    pub(super) amount: FiatAmount,
    /// The client's name for this one order.
    #[schema(example = "5fa733ae-82b4-4ac0-8478-35ff30dae879")]
    pub(super) idempotence_key: Uuid,
    /// No new order is made above this rate. It is no part of what makes a request a repeat.
    #[schema(schema_with = max_rate_schema)]
    pub(super) max_rate: Option<BtcRate>,
}

impl BuyOrderRequest {
    /// Reads each field from its literal JSON, so that no number passes through a float.
    pub(super) fn read(mut body: BodyFields) -> Result<Self, Problem> {
        let currency = body.required("currency", currency);
        let decimal_places = currency.map_or(FiatAmount::SCALE, Currency::decimal_places);
        let amount = body.required("amount", |raw| {
            decimal(raw, "amount", FiatAmount::BOUND, decimal_places)
        });
        let idempotence_key = body.required("idempotence_key", idempotence_key);
        let max_rate = body.optional("max_rate", max_rate);
        match (currency, amount, idempotence_key, max_rate) {
            (Some(currency), Some(amount), Some(idempotence_key), Some(max_rate)) => Ok(Self {
                currency,
                amount,
                idempotence_key,
                max_rate: max_rate.flatten(),
            }),
            _ => Err(body.rejection()),
        }
    }
}

fn amount_schema() -> Schema {
    let number = ObjectBuilder::new()
        .exclusive_minimum(Some(0))
        .multiple_of(Some(0.01));
    text_or_number(number, FiatAmount::BOUND, FiatAmount::SCALE)
        .description(Some(
            "Greater than 0, below 1,000,000,000, with at most 2 decimals and no exponent. A JSON number is taken by its literal digits.",
        ))
        .examples([serde_json::Value::from("123.45")])
        .into()
}

fn max_rate_schema() -> Schema {
    // Programs write smaller numbers with an exponent.
    let number = ObjectBuilder::new().minimum(Some(0.0001)).multiple_of(Some(1e-8));
    text_or_number(number, BtcRate::BOUND, BtcRate::SCALE)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "The highest rate, in fiat per BTC, at which a new order is made. If the market rate is above it, the answer is 409; an equal rate is \
             accepted. Greater than 0, below 1,000,000,000,000, with at most 8 decimals and no exponent. A JSON number is taken by its literal \
             digits.",
        ))
        .examples([serde_json::Value::from("50000.00")])
        .into()
}

/// A string without sign and exponent, or a number. Both are below `bound`, which is a power of 10; `number` has the other rules of numbers.
fn text_or_number(number: ObjectBuilder, bound: u64, decimals: u32) -> OneOfBuilder {
    let more_digits = bound.ilog10() - 1;
    // A fraction that is not 0: so many zeros, a digit that is none, and the rest.
    let fraction = |zeros| format!("0{{{zeros}}}[1-9][0-9]{{0,{}}}", decimals - 1 - zeros);
    let fractions: Vec<String> = (0..decimals).map(fraction).collect();
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!(
            r"^0*([1-9][0-9]{{0,{more_digits}}}(\.[0-9]{{1,{decimals}}})?|0\.({}))$",
            fractions.join("|")
        )));
    let number = number.schema_type(Type::Number).exclusive_maximum(Some(bound));
    OneOfBuilder::new().item(text).item(number)
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

/// Reads a string or a number by its literal digits. The faults name the field, its bound and its decimals.
fn decimal<T: FromStr<Err = MoneyError>>(
    raw: &RawValue,
    field: &str,
    bound: u64,
    decimal_places: u32,
) -> Result<T, FieldFault> {
    let fault = |error| match error {
        MoneyError::NotADecimal => FieldFault::new("decimal_parsing", "Input should be a valid decimal"),
        MoneyError::NotPositive => FieldFault::value_error(&format!("{field} must be greater than 0")),
        MoneyError::TooLarge => FieldFault::value_error(&format!("{field} must be less than {bound}")),
        MoneyError::TooManyDecimals => FieldFault::value_error(&format!(
            "{field} must have no more than {decimal_places} decimals"
        )),
    };
    let is_number = raw
        .get()
        .starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let text = if is_number {
        raw.get().to_owned()
    } else {
        string(raw)?
    };
    let value = text.parse().map_err(fault)?;
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if u32::try_from(decimals).is_ok_and(|decimals| decimals <= decimal_places) {
        Ok(value)
    } else {
        Err(fault(MoneyError::TooManyDecimals))
    }
}

/// `null` is the same as no field, as in FastAPI.
fn max_rate(raw: &RawValue) -> Result<Option<BtcRate>, FieldFault> {
    if raw.get() == "null" {
        return Ok(None);
    }
    decimal(raw, "max_rate", BtcRate::BOUND, BtcRate::SCALE).map(Some)
}

fn idempotence_key(raw: &RawValue) -> Result<Uuid, FieldFault> {
    let text = string(raw)
        .map_err(|_| FieldFault::new("uuid_type", "UUID input should be a string, bytes or UUID object"))?;
    field::uuid(&text)
}
