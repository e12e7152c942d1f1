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

fn btc(cents: i128, rate_parts: i128) -> Option<String> {
    btc_amount(fiat(cents), rate(rate_parts)).map(|btc| btc.to_string())
}

#[test]
fn the_example_of_the_contract_is_rounded_up() {
    assert_eq!(btc(12_345, 4_847_888_000_000).as_deref(), Some("0.00254647"));
}

#[test]
fn an_exact_quotient_is_not_rounded() {
    assert_eq!(btc(100, 300_000_000).as_deref(), Some("0.33333334"));
    assert_eq!(btc(100, 400_000_000).as_deref(), Some("0.25000000"));
    assert_eq!(btc(1, 99_999_999_999_999_999_999).as_deref(), Some("0.00000001"));
}

#[test]
fn an_amount_of_btc_that_its_column_cannot_hold_is_none() {
    assert_eq!(btc(99_999_999_999, 1), None);
}

/// Rounding up, defined without a division: (satoshis - 1) * rate < amount <= satoshis * rate, in units of 10^-16.
fn is_rounded_up(cents: i128, rate_parts: i128, satoshis: i128) -> bool {
    let amount = cents * 10_i128.pow(14);
    (satoshis - 1) * rate_parts < amount && amount <= satoshis * rate_parts
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
        match btc_amount(fiat(cents), rate(parts)) {
            Some(btc) => prop_assert!(is_rounded_up(cents, parts, btc.decimal().mantissa())),
            // Only when even the largest amount of the column is too small.
            None => prop_assert!((limit - 1) * parts < cents * 10_i128.pow(14)),
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
