//! Property tests: no message makes the reader panic, and every accepted message can be stored and shown to clients.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::fuzz::event;
use super::{BuyOrderCreated, BuyOrderVoided, is_reason};

const FIELDS: [(&str, &str); 9] = [
    ("id", "1"),
    ("client_id", "1"),
    ("external_id", r#""3b14efb6-041f-4d31-b35a-37c82333af36""#),
    ("created_at", r#""2026-11-23T15:37:32.531853Z""#),
    ("currency_id", "1"),
    ("currency_iso3", r#""USD""#),
    ("currency_amount", r#""123.45""#),
    ("btc_rate", r#""48478.88000000""#),
    ("btc_amount", r#""0.00254647""#),
];

const FIELDS_OF_A_VOID: [(&str, &str); 4] = [
    ("id", "7"),
    ("external_id", r#""3b14efb6-041f-4d31-b35a-37c82333af36""#),
    ("reason", r#""fat finger""#),
    ("voided_at", r#""2026-11-28T15:37:32.531850Z""#),
];

/// JSON numbers near every bound, and far beyond.
fn number() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![
        Just(i64::from(i32::MIN)),
        Just(i64::from(i32::MAX)),
        Just(i64::MIN),
        -45_i64..45,
        any::<i64>()
    ];
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u128>().prop_map(|number| number.to_string()),
        (any::<bool>(), "[0-9]{1,45}", "[0-9]{1,45}").prop_map(|(negative, integer, fraction)| {
            let integer = integer.trim_start_matches('0');
            let integer = if integer.is_empty() { "0" } else { integer };
            format!("{}{integer}.{fraction}", if negative { "-" } else { "" })
        }),
        ("-?[1-9](\\.[0-9]{1,30})?[eE]", exponent)
            .prop_map(|(mantissa, exponent)| format!("{mantissa}{exponent}")),
    ]
}

/// Times in the format of RFC 3339, most of them valid.
fn time() -> impl Strategy<Value = String> {
    let year = prop_oneof![Just(0), Just(1969), Just(1970), Just(9999), 0..10_000];
    let offset = prop_oneof![
        Just("Z".to_owned()),
        ("[+-]", 0..25, 0..61).prop_map(|(sign, hours, minutes)| format!("{sign}{hours:02}:{minutes:02}"))
    ];
    let day = (
        prop_oneof![Just(1), Just(12), 0..14],
        prop_oneof![Just(1), Just(31), 0..33],
    );
    let clock = (
        prop_oneof![Just(0), Just(23), 0..25],
        prop_oneof![Just(0), Just(59), 0..61],
        prop_oneof![Just(0), Just(60), 0..62],
    );
    (year, day, clock, "(\\.[0-9]{1,12})?", offset).prop_map(
        |(year, (month, day), (hour, minute, second), fraction, offset)| {
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{offset}")
        },
    )
}

/// A JSON value.
fn value() -> impl Strategy<Value = String> {
    let quoted = |text: String| Value::String(text).to_string();
    prop_oneof![
        4 => number(),
        2 => number().prop_map(quoted),
        4 => time().prop_map(quoted),
        1 => any::<String>().prop_map(quoted),
        1 => "[A-Z]{3}".prop_map(quoted),
        1 => "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(quoted),
        1 => prop_oneof![Just("null"), Just("true"), Just("[]"), Just("{}"), Just("[1,[2]]")].prop_map(str::to_owned),
    ]
}

fn message(changes: &[(usize, String)]) -> String {
    message_of(FIELDS, changes)
}

fn message_of<const N: usize>(fields: [(&str, &str); N], changes: &[(usize, String)]) -> String {
    let mut fields = fields.map(|(name, value)| (name, value.to_owned()));
    for (index, value) in changes {
        fields[index % N].1.clone_from(value);
    }
    let fields = fields.map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", fields.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_bytes_make_the_reader_panic(body in vec(any::<u8>(), 0..300)) {
        event(&body);
    }

    #[test]
    fn no_values_make_the_reader_panic_and_what_is_taken_can_be_shown(changes in vec((0..FIELDS.len(), value()), 1..3)) {
        event(message(&changes).as_bytes());
    }

    #[test]
    fn no_values_of_a_void_make_the_reader_panic_and_what_is_taken_can_be_stored(changes in vec((0..FIELDS_OF_A_VOID.len(), value()), 1..3)) {
        event(message_of(FIELDS_OF_A_VOID, &changes).as_bytes());
    }

    #[test]
    fn every_text_is_a_reason_or_refused(text in prop_oneof![".{0,600}", any::<String>()]) {
        let body = message_of(FIELDS_OF_A_VOID, &[(2, Value::String(text.clone()).to_string())]);
        event(body.as_bytes());
        let read = serde_json::from_str::<BuyOrderVoided>(&body);
        prop_assert_eq!(read.ok().map(|event| event.reason), is_reason(&text).then_some(text));
    }

    #[test]
    fn every_decimal_and_every_time_is_read_or_refused(number in number(), time in time(), decimal in 6..9_usize) {
        let time = Value::String(time).to_string();
        for changes in [vec![(decimal, number)], vec![(3, time)]] {
            event(message(&changes).as_bytes());
        }
    }

    #[test]
    fn a_message_cut_or_changed_anywhere_is_read_or_refused(
        is_void in any::<bool>(), index in 0..300_usize, byte in any::<u8>(), cut in any::<bool>()
    ) {
        let body = if is_void { message_of(FIELDS_OF_A_VOID, &[]) } else { message(&[]) };
        let mut body = body.into_bytes();
        let index = index % body.len();
        if cut {
            body.truncate(index);
        } else {
            body[index] = byte;
        }
        event(&body);
    }

    #[test]
    fn other_shapes_are_refused(fields in vec(("[a-z_0-9]{0,20}", value()), 0..12)) {
        let mut object = Map::new();
        for (name, value) in fields {
            object.insert(name, serde_json::from_str(&value).unwrap_or_default());
        }
        let body = Value::Object(object).to_string();
        prop_assert!(serde_json::from_str::<BuyOrderCreated>(&body).is_err());
        prop_assert!(serde_json::from_str::<BuyOrderVoided>(&body).is_err());
    }
}
