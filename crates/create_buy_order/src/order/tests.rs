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
fn the_example_of_the_contract_is_rounded_up() {
    let amount = btc_amount(fiat(12_345), rate(4_847_888_000_000)).map(|btc| btc.to_string());
    assert_eq!(amount.as_deref(), Some("0.00254647"));
}

#[test]
fn an_exact_quotient_is_not_rounded() {
    assert_eq!(
        btc_amount(fiat(100), rate(300_000_000))
            .map(|btc| btc.to_string())
            .as_deref(),
        Some("0.33333334")
    );
    assert_eq!(
        btc_amount(fiat(100), rate(400_000_000))
            .map(|btc| btc.to_string())
            .as_deref(),
        Some("0.25000000")
    );
    assert_eq!(
        btc_amount(fiat(1), rate(99_999_999_999_999_999_999))
            .map(|btc| btc.to_string())
            .as_deref(),
        Some("0.00000001")
    );
}

#[test]
fn an_amount_of_btc_that_no_column_holds_is_none() {
    assert_eq!(btc_amount(fiat(99_999_999_999), rate(1)), None);
}

/// The defining property of rounding up, without a division: (satoshis - 1) * rate < amount <= satoshis * rate, in units of 10^-16.
fn is_rounded_up(cents: i128, rate_parts: i128, satoshis: i128) -> bool {
    let amount = cents * 10_i128.pow(14);
    (satoshis - 1) * rate_parts < amount && amount <= satoshis * rate_parts
}

/// Over the whole range of both columns, each order of magnitude as likely as the others.
fn cents() -> impl Strategy<Value = i128> {
    (0..=10_u32).prop_flat_map(|digits| 10_i128.pow(digits)..10_i128.pow(digits + 1))
}

fn rate_parts() -> impl Strategy<Value = i128> {
    (0..=19_u32).prop_flat_map(|digits| 10_i128.pow(digits)..10_i128.pow(digits + 1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_btc_amount_is_the_exact_quotient_rounded_up(cents in cents(), parts in rate_parts()) {
        let limit = 1_000 * 100_000_000_i128;
        match btc_amount(fiat(cents), rate(parts)) {
            Some(btc) => prop_assert!(is_rounded_up(cents, parts, btc.decimal().mantissa())),
            // Refused only when even the largest amount of the column would not cover it.
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
