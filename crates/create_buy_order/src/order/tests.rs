use proptest::prelude::*;

use super::*;

fn fiat(cents: i128) -> FiatAmount {
    FiatAmount::try_from(Decimal::from_i128_with_scale(cents, 2))
        .unwrap_or_else(|error| panic!("{cents}: {error}"))
}

fn rate(parts: i128) -> BtcRate {
    BtcRate::try_from(Decimal::from_i128_with_scale(parts, 8))
        .unwrap_or_else(|error| panic!("{parts}: {error}"))
}

#[test]
fn a_quotient_is_rounded_up_unless_it_is_exact_and_is_none_if_its_column_cannot_hold_it() {
    for (cents, rate_parts, expected) in [
        // The example of the contract.
        (12_345, 4_847_888_000_000, Some("0.00254647")),
        (100, 300_000_000, Some("0.33333334")),
        (100, 400_000_000, Some("0.25000000")),
        (1, 99_999_999_999_999_999_999, Some("0.00000001")),
        (99_999_999_999, 1, None),
    ] {
        let btc = btc_amount(fiat(cents), rate(rate_parts)).map(|btc| btc.to_string());
        assert_eq!(btc.as_deref(), expected, "{cents} / {rate_parts}");
    }
}

/// Numbers of up to this many digits; each order of magnitude is equally likely.
fn up_to_digits(digits: u32) -> impl Strategy<Value = i128> {
    (0..digits).prop_flat_map(|exponent| 10_i128.pow(exponent)..10_i128.pow(exponent + 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_btc_amount_is_the_exact_quotient_rounded_up(cents in up_to_digits(11), parts in up_to_digits(20)) {
        let limit = 1_000 * 100_000_000_i128;
        // In units of 10^-16, as satoshis * parts.
        let amount = cents * 10_i128.pow(14);
        match btc_amount(fiat(cents), rate(parts)).map(|btc| btc.decimal().mantissa()) {
            // Rounding up, defined without a division.
            Some(satoshis) => prop_assert!((satoshis - 1) * parts < amount && amount <= satoshis * parts),
            // Only when even the largest amount of the column is too small.
            None => prop_assert!((limit - 1) * parts < amount),
        }
    }

    #[test]
    fn a_rate_that_divides_the_amount_gives_the_exact_quotient(k in 1..1_000_000_i128, m in 1..100_000_i128, zeros in 0..=5_u32) {
        // satoshis * rate = m * 10^zeros * k * 10^(14 - zeros), which is a whole number of cents: k * m.
        let satoshis = m * 10_i128.pow(zeros);
        let parts = k * 10_i128.pow(14 - zeros);
        let exact = btc_amount(fiat(k * m), rate(parts)).map(|btc| btc.decimal().mantissa());
        prop_assert_eq!(exact, Some(satoshis));
    }
}
