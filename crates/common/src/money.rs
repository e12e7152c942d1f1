//! Money as exact decimals. Never a float: a value that its column cannot hold is refused where it is read.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;

/// The currencies that orders may be paid in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Currency {
    /// United States dollar.
    Usd,
    /// Euro.
    Eur,
    /// Pound sterling.
    Gbp,
}

impl Currency {
    /// All of them, in the order in which messages name them.
    pub const ALL: [Self; 3] = [Self::Usd, Self::Eur, Self::Gbp];

    /// The names of all of them, for messages: `USD, EUR, GBP`.
    pub const SUPPORTED: &str = "USD, EUR, GBP";

    /// The ISO 4217 code.
    #[must_use]
    pub const fn iso3(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Eur => "EUR",
            Self::Gbp => "GBP",
        }
    }

    /// How many decimals an amount in this currency may have.
    #[must_use]
    pub const fn decimal_places(self) -> u32 {
        match self {
            Self::Usd | Self::Eur | Self::Gbp => 2,
        }
    }

    /// The currency with this ISO 4217 code, in capitals, if it is supported.
    #[must_use]
    pub fn parse(iso3: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|currency| currency.iso3() == iso3)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.iso3())
    }
}

/// Why a text is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not of the form `123.45`: digits, at most one point with digits on both sides, at most a leading minus.
    #[error("not a plain decimal number")]
    NotADecimal,
    /// Zero or less.
    #[error("not greater than 0")]
    NotPositive,
    /// At or beyond the upper bound.
    #[error("too large")]
    TooLarge,
    /// More decimals than can be kept.
    #[error("too many decimals")]
    TooManyDecimals,
}

/// Reads `123.45` exactly. Exponents, a plus sign, underscores, spaces, `NaN` and the like are refused by grammar, because the decimal
/// library takes some of them.
///
/// # Errors
/// [`MoneyError::NotADecimal`], or [`MoneyError::TooLarge`] and [`MoneyError::TooManyDecimals`] for more digits than a decimal holds.
pub fn parse_decimal(text: &str) -> Result<Decimal, MoneyError> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(integer) || !all_digits(fraction) {
        return Err(MoneyError::NotADecimal);
    }
    let significant = integer.trim_start_matches('0');
    Decimal::from_str_exact(text).map_err(|_| {
        const MOST_INTEGER_DIGITS: usize = 20;
        if significant.len() > MOST_INTEGER_DIGITS {
            MoneyError::TooLarge
        } else {
            MoneyError::TooManyDecimals
        }
    })
}

macro_rules! decimal_newtype {
    ($(#[$doc:meta])* $name:ident, scale = $scale:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Decimal);

        impl $name {
            /// Decimals that its column keeps and its text shows.
            pub const SCALE: u32 = $scale;

            /// The exact value.
            #[must_use]
            pub const fn decimal(self) -> Decimal {
                self.0
            }

            fn positive_below(value: Decimal, bound: Decimal) -> Result<Self, MoneyError> {
                if value <= Decimal::ZERO {
                    return Err(MoneyError::NotPositive);
                }
                if value >= bound {
                    return Err(MoneyError::TooLarge);
                }
                if value.normalize().scale() > Self::SCALE {
                    return Err(MoneyError::TooManyDecimals);
                }
                let mut scaled = value;
                scaled.rescale(Self::SCALE);
                Ok(Self(scaled))
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
    FiatAmount, scale = 2
);
decimal_newtype!(
    /// The price of one BTC in fiat: positive, a `numeric(20, 8)` column.
    BtcRate, scale = 8
);
decimal_newtype!(
    /// An amount of BTC: positive, down to a satoshi, a `numeric(11, 8)` column.
    BtcAmount, scale = 8
);

impl FiatAmount {
    /// The first amount that is too large.
    pub const BOUND: Decimal = Decimal::from_parts(1_000_000_000, 0, 0, false, 0);
}

impl TryFrom<Decimal> for FiatAmount {
    type Error = MoneyError;

    fn try_from(value: Decimal) -> Result<Self, MoneyError> {
        Self::positive_below(value, Self::BOUND)
    }
}

impl BtcRate {
    /// Reads a rate as the price provider writes it.
    ///
    /// # Errors
    /// When the text is no positive decimal that fits the column.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl TryFrom<Decimal> for BtcRate {
    type Error = MoneyError;

    fn try_from(value: Decimal) -> Result<Self, MoneyError> {
        const BOUND: Decimal = Decimal::from_parts(0xd4a5_1000, 0xe8, 0, false, 0); // 10^12: 20 digits, 8 of them decimals
        Self::positive_below(value, BOUND)
    }
}

impl TryFrom<Decimal> for BtcAmount {
    type Error = MoneyError;

    fn try_from(value: Decimal) -> Result<Self, MoneyError> {
        const BOUND: Decimal = Decimal::from_parts(1_000, 0, 0, false, 0);
        Self::positive_below(value, BOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(
            "1".parse::<FiatAmount>().map(|amount| amount.to_string()),
            Ok("1.00".to_owned())
        );
        assert_eq!(
            "999999999.99"
                .parse::<FiatAmount>()
                .map(|amount| amount.to_string()),
            Ok("999999999.99".to_owned())
        );
        assert_eq!("1000000000".parse::<FiatAmount>(), Err(MoneyError::TooLarge));
        assert_eq!("0.00".parse::<FiatAmount>(), Err(MoneyError::NotPositive));
        assert_eq!("-1".parse::<FiatAmount>(), Err(MoneyError::NotPositive));
        assert_eq!("0.001".parse::<FiatAmount>(), Err(MoneyError::TooManyDecimals));
    }

    #[test]
    fn a_rate_fits_its_column_or_is_none() {
        assert_eq!(
            BtcRate::parse("48478.88").map(|rate| rate.to_string()),
            Ok("48478.88000000".to_owned())
        );
        assert_eq!(
            BtcRate::parse("999999999999.99999999").map(|rate| rate.to_string()),
            Ok("999999999999.99999999".to_owned())
        );
        assert_eq!(BtcRate::parse("1000000000000"), Err(MoneyError::TooLarge));
        assert_eq!(BtcRate::parse("0.000000001"), Err(MoneyError::TooManyDecimals));
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
