//! Refuses a price that is far from the last good one, so that one bad answer of the price provider makes no orders.
//!
//! A market may truly move that far. So a price that the provider repeats for `QUOTE_DEVIATION_HOLD_S` is believed.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::money::{BtcRate, Currency, MoneyError, PerCurrency, parse_decimal};

/// How far a rate may be from another, as a part of the other: `0.5` is 50 %. Above 0, below 1, with at most 8 decimals. A fall is always
/// less than 1, so a bound of 1 would allow every fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxDeviation {
    /// In units of 10^-8.
    mantissa: i128,
}

impl MaxDeviation {
    const SCALE: u32 = 8;
    const ONE: i128 = 10_i128.pow(Self::SCALE);

    /// Whether `|offered - known| <= known * self`, exactly. Rates have one scale, so their mantissas are compared. The largest product is
    /// below 10^20 * 10^8, far below 2^127.
    fn allows(self, offered: BtcRate, known: BtcRate) -> bool {
        let (offered, known) = (offered.decimal().mantissa(), known.decimal().mantissa());
        let difference = offered.checked_sub(known).and_then(i128::checked_abs);
        let scaled = difference.and_then(|difference| difference.checked_mul(Self::ONE));
        match (scaled, known.checked_mul(self.mantissa)) {
            (Some(difference), Some(max)) => difference <= max,
            _ => false,
        }
    }
}

impl FromStr for MaxDeviation {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let mut ratio = parse_decimal(text)?.normalize();
        if ratio.scale() > Self::SCALE {
            return Err(MoneyError::TooManyDecimals);
        }
        ratio.rescale(Self::SCALE);
        match ratio.mantissa() {
            ..=0 => Err(MoneyError::NotPositive),
            Self::ONE.. => Err(MoneyError::TooLarge),
            mantissa => Ok(Self { mantissa }),
        }
    }
}

/// The verdict on an offered rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is near the last good rate, or the first rate since the start.
    Good,
    /// It is far from the last good rate, and the provider has said so for long enough.
    Believed { last_good: BtcRate },
    /// It is far from the last good rate.
    Refused { last_good: BtcRate },
}

/// Compares each offered rate with the last good rate of its currency.
#[derive(Debug)]
pub(crate) struct Guard {
    max: MaxDeviation,
    hold: Duration,
    histories: PerCurrency<Mutex<History>>,
}

impl Guard {
    /// Refuses rates that are further than `max` from the last good one, until the provider has repeated one for `hold`.
    pub(crate) fn new(max: MaxDeviation, hold: Duration) -> Self {
        Self {
            max,
            hold,
            histories: PerCurrency::default(),
        }
    }

    /// The verdict on a rate that was offered at `now`. Unless it is refused, it is the last good rate from now on.
    pub(crate) fn judge(&self, currency: Currency, offered: BtcRate, now: Instant) -> Verdict {
        let mut history = self.histories[currency]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        history.judge(offered, now, self)
    }
}

#[derive(Debug, Default)]
struct History {
    last_good: Option<BtcRate>,
    /// The first of the refused rates that are near each other, and when it was offered.
    refused: Option<(BtcRate, Instant)>,
}

impl History {
    fn judge(&mut self, offered: BtcRate, now: Instant, guard: &Guard) -> Verdict {
        let verdict = match self.last_good {
            Some(last_good) if !guard.max.allows(offered, last_good) => {
                let repeated = self
                    .refused
                    .filter(|(first, _)| guard.max.allows(offered, *first));
                let (first, since) = repeated.unwrap_or((offered, now));
                if now.saturating_duration_since(since) < guard.hold {
                    self.refused = Some((first, since));
                    return Verdict::Refused { last_good };
                }
                Verdict::Believed { last_good }
            }
            _ => Verdict::Good,
        };
        *self = Self {
            last_good: Some(offered),
            refused: None,
        };
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(300);

    fn rate(text: &str) -> BtcRate {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn guard(max: &str) -> Guard {
        let max = max.parse().unwrap_or_else(|error| panic!("{max}: {error}"));
        Guard::new(max, HOLD)
    }

    /// The verdict on the second of two rates.
    fn after(guard: &Guard, known: &str, offered: &str) -> Verdict {
        let mut history = History::default();
        let now = Instant::now();
        assert_eq!(history.judge(rate(known), now, guard), Verdict::Good);
        history.judge(rate(offered), now, guard)
    }

    #[test]
    fn a_rate_at_the_bound_is_good_and_one_unit_beyond_is_refused() {
        const LARGEST: &str = "999999999999.99999999";
        for (max, known, offered, is_good) in [
            ("0.5", "100", "150", true),
            ("0.5", "100", "150.00000001", false),
            ("0.5", "100", "50", true),
            ("0.5", "100", "49.99999999", false),
            ("0.5", "0.00000001", "0.00000001", true),
            ("0.5", "0.00000001", "0.00000002", false),
            ("0.5", "48478.88", LARGEST, false),
            ("0.5", LARGEST, "500000000000", true),
            ("0.5", LARGEST, "499999999999.99999999", false),
            ("0.99999999", LARGEST, "10000", true),
            ("0.99999999", LARGEST, "9999.99999999", false),
            ("0.99999999", "100", "199.999999", true),
            ("0.99999999", "100", "199.99999901", false),
            ("0.00000001", "1", "1.00000001", true),
            ("0.00000001", "1", "1.00000002", false),
            ("0.00000001", "0.99999999", "1", false),
        ] {
            let verdict = after(&guard(max), known, offered);
            let last_good = rate(known);
            let expected = if is_good {
                Verdict::Good
            } else {
                Verdict::Refused { last_good }
            };
            assert_eq!(verdict, expected, "{max}: {offered} after {known}");
        }
    }

    #[test]
    fn a_bound_is_a_plain_decimal_above_0_and_below_1() {
        for (text, fault) in [
            ("0", MoneyError::NotPositive),
            ("-0.5", MoneyError::NotPositive),
            ("1", MoneyError::TooLarge),
            ("50", MoneyError::TooLarge),
            ("0.000000001", MoneyError::TooManyDecimals),
            ("50%", MoneyError::NotADecimal),
            ("5e-1", MoneyError::NotADecimal),
            (".5", MoneyError::NotADecimal),
        ] {
            assert_eq!(text.parse::<MaxDeviation>(), Err(fault), "{text}");
        }
        assert_eq!(
            "0.500000000".parse::<MaxDeviation>(),
            Ok(MaxDeviation { mantissa: 50_000_000 })
        );
    }

    /// Seconds, the rate that is offered then, and what is expected.
    fn follow(steps: &[(u64, &str, Verdict)]) {
        let guard = guard("0.5");
        let begun = Instant::now();
        for (second, offered, expected) in steps {
            let at = begun + Duration::from_secs(*second);
            let verdict = guard.judge(Currency::Usd, rate(offered), at);
            assert_eq!(verdict, *expected, "{offered} at {second} s");
        }
    }

    #[test]
    fn a_rate_that_is_repeated_for_the_hold_is_believed_and_the_next_are_compared_with_it() {
        let refused = Verdict::Refused {
            last_good: rate("100"),
        };
        follow(&[
            (0, "100", Verdict::Good),
            (1, "900", refused),
            (200, "1000", refused),
            (300, "800", refused),
            (
                301,
                "850",
                Verdict::Believed {
                    last_good: rate("100"),
                },
            ),
            (302, "900", Verdict::Good),
            (
                303,
                "100",
                Verdict::Refused {
                    last_good: rate("900"),
                },
            ),
        ]);
    }

    #[test]
    fn the_hold_begins_again_after_a_good_rate_and_at_a_rate_far_from_the_refused_one() {
        let refused = Verdict::Refused {
            last_good: rate("100"),
        };
        follow(&[
            (0, "100", Verdict::Good),
            (1, "900", refused),
            (2, "100", Verdict::Good),
            (301, "900", refused),
            (302, "5", refused),
            (601, "900", refused),
            (900, "900", refused),
            (
                901,
                "900",
                Verdict::Believed {
                    last_good: rate("100"),
                },
            ),
        ]);
    }

    #[test]
    fn each_currency_is_compared_with_itself() {
        let guard = guard("0.5");
        let now = Instant::now();
        assert_eq!(guard.judge(Currency::Usd, rate("100"), now), Verdict::Good);
        assert_eq!(guard.judge(Currency::Eur, rate("1"), now), Verdict::Good);
        let last_good = rate("100");
        assert_eq!(
            guard.judge(Currency::Usd, rate("1"), now),
            Verdict::Refused { last_good }
        );
    }
}
