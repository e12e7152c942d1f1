//! Fuzz targets: what each parser of foreign bytes promises, asserted for inputs that libFuzzer makes. `scripts/fuzz.sh` builds and runs
//! them. What a target asserts is beside its parser, in a file `fuzz.rs`; unit tests assert it for each file in `corpus/`.

#![no_main]

use std::sync::OnceLock;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 12] = [
    ("ack", fluent_logger::fuzz::ack),
    ("event", common::buy_order_event::fuzz::event),
    ("exposition", console::exposition),
    ("jwks", common::auth::fuzz::jwks),
    ("message", read_model_sync::delivery::fuzz::message),
    ("page_query", fetch_buy_orders::fuzz::page_query),
    ("price", btc_price::fuzz::price),
    ("put_body", create_buy_order::fuzz::put_body),
    ("request_id", common::http::fuzz::request_id),
    ("spans", console::spans),
    ("token", common::auth::fuzz::token),
    ("trace_context", common::trace_context::fuzz::trace_context),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// The variable `FUZZ_TARGET` names the target.
#[expect(
    clippy::disallowed_methods,
    reason = "libFuzzer reads the arguments of the command"
)]
fn choose() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.into_iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else {
        panic!(
            "FUZZ_TARGET is {name:?}, and not one of {:?}",
            TARGETS.map(|(name, _)| name)
        );
    };
    let _ = CHOSEN.set(target);
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        target(data);
    }
});
