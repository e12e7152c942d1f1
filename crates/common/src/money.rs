//! Money as exact decimals, never as floats. A value that its column cannot hold is refused when it is read.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::str::FromStr;

use rust_decimal::Decimal;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef, Postgres};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! currencies {
    ($($(#[$doc:meta])* $name:ident: $iso3:literal, $decimal_places:literal decimals;)+) => {
        /// The currencies that orders may be paid in.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Currency {
            $($(#[$doc])* $name,)+
        }

        impl Currency {
            /// All currencies, in the order in which messages name them.
            pub const ALL: [Self; [$($iso3),+].len()] = [$(Self::$name),+];

            /// The ISO 4217 code.
            #[must_use]
            pub const fn iso3(self) -> &'static str {
                match self {
                    $(Self::$name => $iso3,)+
                }
            }

            /// How many decimals an amount in this currency may have.
            #[must_use]
            pub const fn decimal_places(self) -> u32 {
                match self {
                    $(Self::$name => $decimal_places,)+
                }
            }
        }
    };
}

// A new currency is a line here and a row in the table `currency`: docs/CHANGING.md.
currencies! {
    /// United States dollar.
    Usd: "USD", 2 decimals;
    /// Euro.
    Eur: "EUR", 2 decimals;
    /// Pound sterling.
    Gbp: "GBP", 2 decimals;
}

impl Currency {
    /// The currency with this ISO 4217 code, in capitals, if it is supported.
    #[must_use]
    pub fn parse(iso3: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|currency| currency.iso3() == iso3)
    }

    /// The codes of all currencies, for messages: `USD, EUR, GBP`.
    #[must_use]
    pub fn supported() -> String {
        Self::ALL.map(Self::iso3).join(", ")
    }
}

/// In OpenAPI documents: the code as a text.
impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!("One of {}.", Self::supported())))
            .pattern(Some(format!("^({})$", Self::ALL.map(Self::iso3).join("|"))))
            .examples([Self::Usd.iso3()])
            .into()
    }
}

impl ToSchema for Currency {}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.iso3())
    }
}

/// One value for each currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerCurrency<T>([T; Currency::ALL.len()]);

impl<T> PerCurrency<T> {
    /// Makes the value of each currency.
    pub fn from_fn(value: impl FnMut(Currency) -> T) -> Self {
        Self(Currency::ALL.map(value))
    }

    /// Each currency with its value, in the order of [`Currency::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Currency, &T)> {
        Currency::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Currency> for PerCurrency<T> {
    type Output = T;

    fn index(&self, currency: Currency) -> &T {
        &self.0[currency as usize]
    }
}

impl<T> IndexMut<Currency> for PerCurrency<T> {
    fn index_mut(&mut self, currency: Currency) -> &mut T {
        &mut self.0[currency as usize]
    }
}

/// Why a text is not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not of the form `123.45`: digits, optionally a minus sign in front and a point with digits on both sides.
    #[error("not a plain decimal number")]
    NotADecimal,
    /// Zero or less.
    #[error("not greater than 0")]
    NotPositive,
    /// At or beyond the upper bound.
    #[error("too large")]
    TooLarge,
    /// More decimals than the column keeps.
    #[error("too many decimals")]
    TooManyDecimals,
}

/// Reads `123.45` exactly. The form is checked here, because the decimal library accepts underscores and plus signs.
///
/// # Errors
/// [`MoneyError::NotADecimal`]; [`MoneyError::TooLarge`] or [`MoneyError::TooManyDecimals`] for more digits than a [`Decimal`] holds.
pub fn parse_decimal(text: &str) -> Result<Decimal, MoneyError> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(integer) || !all_digits(fraction) {
        return Err(MoneyError::NotADecimal);
    }
    Decimal::from_str_exact(text).map_err(|_| {
        const MAX_INTEGER_DIGITS: usize = 20;
        if integer.trim_start_matches('0').len() > MAX_INTEGER_DIGITS {
            MoneyError::TooLarge
        } else {
            MoneyError::TooManyDecimals
        }
    })
}

macro_rules! decimal_newtype {
    ($(#[$doc:meta])* $name:ident, bound = $bound:literal, scale = $scale:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Decimal);

        impl $name {
            /// The number of decimals in its column and in its text.
            pub const SCALE: u32 = $scale;

            /// A value is below this.
            pub const BOUND: u64 = $bound;

            /// The exact value.
            #[must_use]
            pub const fn decimal(self) -> Decimal {
                self.0
            }
        }

        impl TryFrom<Decimal> for $name {
            type Error = MoneyError;

            fn try_from(mut value: Decimal) -> Result<Self, MoneyError> {
                if value <= Decimal::ZERO {
                    return Err(MoneyError::NotPositive);
                }
                if value >= Decimal::from(Self::BOUND) {
                    return Err(MoneyError::TooLarge);
                }
                if value.normalize().scale() > Self::SCALE {
                    return Err(MoneyError::TooManyDecimals);
                }
                value.rescale(Self::SCALE);
                Ok(Self(value))
            }
        }

        /// As PostgreSQL's `numeric`.
        impl sqlx::Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <Decimal as sqlx::Type<Postgres>>::type_info()
            }
        }

        impl<'r> sqlx::Decode<'r, Postgres> for $name {
            fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(<Decimal as sqlx::Decode<Postgres>>::decode(value)?.try_into()?)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl FromStr for $name {
            type Err = MoneyError;

            fn from_str(text: &str) -> Result<Self, MoneyError> {
                Self::try_from(parse_decimal(text)?)
            }
        }
    };
}

decimal_newtype!(
    /// What a client pays: 0 < amount < 1,000,000,000 with 2 decimals, a `numeric(12, 2)` column.
    FiatAmount, bound = 1_000_000_000, scale = 2
);
decimal_newtype!(
    /// The price of one BTC in fiat: 0 < rate < 10^12 with 8 decimals, a `numeric(20, 8)` column.
    BtcRate, bound = 1_000_000_000_000, scale = 8
);
decimal_newtype!(
    /// An amount of BTC in whole satoshis: 0 < amount < 1,000, a `numeric(11, 8)` column.
    BtcAmount, bound = 1_000, scale = 8
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_currencies_in_this_order() {
        assert_eq!(Currency::supported(), "USD, EUR, GBP");
        assert_eq!(Currency::parse("GBP"), Some(Currency::Gbp));
        assert_eq!(Currency::parse("gbp"), None);
    }

    #[test]
    fn only_plain_decimals_are_read() {
        for text in [
            "", ".", "1.", ".5", "+5", "1_000", "1e5", "NaN", "Infinity", " 1", "1 ", "- 1", "--1", "1,5",
            "0x1", "١",
        ] {
            assert_eq!(parse_decimal(text), Err(MoneyError::NotADecimal), "{text:?}");
        }
        assert_eq!(parse_decimal("-0.50"), Ok(Decimal::new(-50, 2)));
        assert_eq!(parse_decimal("007"), Ok(Decimal::new(7, 0)));
    }

    #[test]
    fn a_fiat_amount_keeps_two_decimals_and_its_bounds() {
        let read = |text: &str| text.parse::<FiatAmount>().map(|amount| amount.to_string());
        assert_eq!(read("1").as_deref(), Ok("1.00"));
        assert_eq!(read("999999999.99").as_deref(), Ok("999999999.99"));
        assert_eq!(read("1000000000"), Err(MoneyError::TooLarge));
        assert_eq!(read("0.00"), Err(MoneyError::NotPositive));
        assert_eq!(read("-1"), Err(MoneyError::NotPositive));
        assert_eq!(read("0.001"), Err(MoneyError::TooManyDecimals));
    }

    #[test]
    fn a_rate_fits_its_column_or_is_refused() {
        let read = |text: &str| text.parse::<BtcRate>().map(|rate| rate.to_string());
        assert_eq!(read("48478.88").as_deref(), Ok("48478.88000000"));
        assert_eq!(
            read("999999999999.99999999").as_deref(),
            Ok("999999999999.99999999")
        );
        assert_eq!(read("1000000000000"), Err(MoneyError::TooLarge));
        assert_eq!(read("0.000000001"), Err(MoneyError::TooManyDecimals));
    }

    #[test]
    fn each_currency_has_its_own_value() {
        let mut codes = PerCurrency::from_fn(Currency::iso3);
        codes[Currency::Eur] = "changed";
        for (currency, code) in codes.iter() {
            let changed = currency == Currency::Eur;
            assert_eq!(*code, if changed { "changed" } else { currency.iso3() });
            assert_eq!(codes[currency], *code);
        }
    }

    #[test]
    fn digits_beyond_a_decimal_are_refused_not_rounded() {
        assert_eq!(parse_decimal(&"9".repeat(40)), Err(MoneyError::TooLarge));
        assert_eq!(
            parse_decimal(&format!("0.{}", "1".repeat(40))),
            Err(MoneyError::TooManyDecimals)
        );
    }
}
