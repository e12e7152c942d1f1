//! What is promised of every answer of the price provider.

use common::money::Currency;
use rust_decimal::Decimal;

use super::parse_price;

/// A price that is taken is the provider's own digits, positive, and fits its column, `numeric(20, 8)`.
///
/// # Panics
///
/// If that is not so.
pub fn price(data: &[u8]) {
    for currency in Currency::ALL {
        let Ok(price) = parse_price(data, currency) else {
            continue;
        };
        assert_eq!(Decimal::from_str_exact(&price.text), Ok(price.rate.decimal()));
        assert!(price.rate.decimal() > Decimal::ZERO);
        let rate = price.rate.to_string();
        let (integer, fraction) = rate.split_once('.').unwrap();
        assert!((1..=12).contains(&integer.len()) && fraction.len() == 8, "{rate}");
        assert_eq!(rate.parse(), Ok(price.rate));
        // The answer names one currency.
        let others = Currency::ALL.into_iter().filter(|other| *other != currency);
        assert!(others.into_iter().all(|other| parse_price(data, other).is_err()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("price", super::price);
    }
}
