//! What is promised of every event: no bytes make the reader panic, and what it accepts can be stored and shown to clients.

use time::OffsetDateTime;

use super::{BuyOrderCreated, BuyOrderVoided, is_reason};
use crate::timestamp::rfc3339_micros;

/// The event of either type that is read from `data` keeps the limits of the read model's columns and of `fetch_buy_orders`' answers, and is the
/// same when it is written and read again.
///
/// # Panics
///
/// If that is not so.
pub fn event(data: &[u8]) {
    created(data);
    voided(data);
}

fn created(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<BuyOrderCreated>(data) else {
        return;
    };
    assert!(event.id >= 1 && event.client_id >= 1 && event.currency_id >= 1);
    assert_is_shown_exactly(event.created_at);
    assert!(
        event.currency_iso3.len() == 3 && event.currency_iso3.bytes().all(|byte| byte.is_ascii_uppercase())
    );
    for (text, integer_digits, decimals) in [
        (event.currency_amount.to_string(), 10, 2),
        (event.btc_rate.to_string(), 12, 8),
        (event.btc_amount.to_string(), 3, 8),
    ] {
        let (integer, fraction) = text.split_once('.').unwrap_or_default();
        assert!(
            (1..=integer_digits).contains(&integer.len()) && fraction.len() == decimals,
            "{text}"
        );
        assert!(
            text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) && !text.starts_with('-'),
            "{text}"
        );
    }
    let written = serde_json::to_vec(&event).unwrap();
    assert_eq!(
        serde_json::from_slice::<BuyOrderCreated>(&written).unwrap(),
        event
    );
}

fn voided(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<BuyOrderVoided>(data) else {
        return;
    };
    assert!(event.id >= 1);
    assert_is_shown_exactly(event.voided_at);
    assert!(is_reason(&event.reason) && (1..=500).contains(&event.reason.chars().count()));
    assert!(event.reason.lines().count() == 1 && !event.reason.contains('\0'));
    let written = serde_json::to_vec(&event).unwrap();
    assert_eq!(serde_json::from_slice::<BuyOrderVoided>(&written).unwrap(), event);
}

fn assert_is_shown_exactly(time: OffsetDateTime) {
    assert!((1970..=9999).contains(&time.year()));
    assert!(time.offset().is_utc() && time.nanosecond().is_multiple_of(1000));
    assert_eq!(rfc3339_micros(time).len(), "2026-11-23T15:37:32.531853Z".len());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_holds_for_the_corpus() {
        fuzz::replay("event", super::event);
    }
}
