//! The contract of events, `docs/asyncapi.json`: whether a message keeps it.

use std::fs;

use anyhow::{Context as _, anyhow};
use boon::{Compiler, Schemas};
use serde_json::Value;

/// Read when it is used: images are built without it.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/asyncapi.json");
/// Nothing is loaded from here.
const LOCATION: &str = "https://localhost/asyncapi.json";

/// Checks the body of a message against the schema of its type, the property `type`.
///
/// # Errors
/// When the contract has no such type, or the body is not as it says: then every fault with its place.
pub fn check_event(kind: &str, body: &[u8]) -> anyhow::Result<()> {
    let document = document()?;
    let schema = document["components"]["messages"][kind]["payload"]["$ref"]
        .as_str()
        .with_context(|| format!("the contract has no message of type {kind:?}"))?;
    let schema = format!("{LOCATION}{schema}");
    let body: Value = serde_json::from_slice(body).context("the body is not JSON")?;
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.enable_format_assertions();
    let faulty = |error| anyhow!("the contract is faulty: {error:#}");
    compiler.add_resource(LOCATION, document).map_err(faulty)?;
    let schema = compiler.compile(&schema, &mut schemas).map_err(faulty)?;
    schemas
        .validate(&body, schema)
        .map_err(|error| anyhow!("{kind} is not as its contract says: {error:#}"))
}

fn document() -> anyhow::Result<Value> {
    let text = fs::read_to_string(DOCUMENT).with_context(|| format!("could not read {DOCUMENT}"))?;
    serde_json::from_str(&text).with_context(|| format!("{DOCUMENT} is not JSON"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const CREATED: &str = "buy_order_created";

    /// Of a message type, as the document shows it.
    fn example(kind: &str) -> String {
        document().unwrap()["components"]["messages"][kind]["examples"][0]["payload"].to_string()
    }

    fn fault(kind: &str, body: &str) -> String {
        check_event(kind, body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_examples_of_the_contract_keep_it() {
        for kind in [CREATED, "buy_order_voided"] {
            check_event(kind, example(kind).as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_message_of_the_original_keeps_it() {
        let body = br#"{"id": 1, "external_id": "3b14efb6-041f-4d31-b35a-37c82333af36", "client_id": 1,
            "created_at": "2026-11-23T15:37:32.531853+00:00", "currency_id": 1, "currency_iso3": "USD", "currency_amount": 123.45,
            "btc_rate": 48478.88, "btc_amount": 2e-05}"#;
        check_event(CREATED, body).unwrap();
    }

    #[test]
    fn what_breaks_the_contract_is_named_with_its_place() {
        assert_eq!(
            fault("buy_order_noted", "{}"),
            "the contract has no message of type \"buy_order_noted\""
        );
        assert_eq!(fault(CREATED, "{"), "the body is not JSON");
        let body = example(CREATED);
        for (part, broken, place) in [
            (r#""123.45""#, r#""123,45""#, "/currency_amount"),
            (r#""USD""#, r#""usd""#, "/currency_iso3"),
            (r#""client_id":1"#, r#""client_id":0"#, "/client_id"),
            ("2026-11-23T15", "2026-11-23 15", "/created_at"),
            ("3b14efb6", "xyz", "/external_id"),
            (r#""btc_rate""#, r#""rate""#, "btc_rate"),
        ] {
            let broken = body.replace(part, broken);
            assert_ne!(broken, body);
            assert!(
                fault(CREATED, &broken).contains(place),
                "{}",
                fault(CREATED, &broken)
            );
        }
    }
}
