//! The contract of events, `docs/asyncapi.json`: made from the types, and compared with what is committed.
//!
//! A change that would break a consumer, or that could not read a message of before, is refused. Any other is written by
//! `UPDATE_DOCUMENTS=1 ./test.sh unit`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use super::topology::BUY_ORDER_QUEUE;
use crate::buy_order_event::{BuyOrderCreated, BuyOrderVoided, GOLDEN_CREATED, GOLDEN_VOIDED};

fn schema<T: PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap()
}

fn message(kind: &str, title: &str, schema: &str, example: &str) -> Value {
    json!({
        "name": kind,
        "title": title,
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/TraceContext"},
        "payload": {"$ref": format!("#/components/schemas/{schema}")},
        "bindings": {"amqp": {"messageType": kind, "bindingVersion": "0.3.0"}},
        "examples": [{"payload": serde_json::from_str::<Value>(example).unwrap()}],
    })
}

fn document() -> Value {
    let (created, voided) = (BuyOrderCreated::MESSAGE_TYPE, BuyOrderVoided::MESSAGE_TYPE);
    let in_channel = |kind: &str| json!({"$ref": format!("#/components/messages/{kind}")});
    let of_channel = |kind: &str| json!({"$ref": format!("#/channels/{BUY_ORDER_QUEUE}/messages/{kind}")});
    let operation = |action: &str, summary: &str| {
        json!({
            "action": action,
            "summary": summary,
            "channel": {"$ref": format!("#/channels/{BUY_ORDER_QUEUE}")},
            "messages": [of_channel(created), of_channel(voided)],
        })
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "The events of the cluster",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Each message is persistent, JSON, and may arrive more than once. Its properties: `type` says what happened, \
                `message_id` is the same each time the event is sent, `timestamp` says when it happened, in whole seconds, and `app_id` \
                which service sent it. Consumers ignore fields that they do not know.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            BUY_ORDER_QUEUE: {
                "address": BUY_ORDER_QUEUE,
                "description": "The routing key, and the name of the queue. Messages may arrive in any order.",
                "messages": {created: in_channel(created), voided: in_channel(voided)},
                "bindings": {"amqp": {
                    "is": "routingKey",
                    "exchange": {"name": "pydist", "type": "direct", "durable": true, "autoDelete": false},
                    "bindingVersion": "0.3.0",
                }},
            },
        },
        "operations": {
            "send_buy_order_events": operation("send", "create_buy_order sends what its outbox holds"),
            "receive_buy_order_events": operation("receive", "read_model_sync projects the events into the read model"),
        },
        "components": {
            "messages": {
                created: message(created, "An order was created", "BuyOrderCreated", GOLDEN_CREATED),
                voided: message(voided, "An order was voided", "BuyOrderVoided", GOLDEN_VOIDED),
            },
            "schemas": {
                "BuyOrderCreated": schema::<BuyOrderCreated>(),
                "BuyOrderVoided": schema::<BuyOrderVoided>(),
                "TraceContext": {
                    "type": "object",
                    "description": "The W3C trace context of the request that caused the event.",
                    "properties": {"traceparent": {"type": "string"}, "tracestate": {"type": "string"}},
                },
            },
        },
    })
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/asyncapi.json")
}

/// How a new contract breaks consumers of the committed one, or cannot read what is sent by it: a sentence for each.
fn breaks(committed: &Value, new: &Value) -> Vec<String> {
    const ADVICE: &str = "Keep it, and send a new type of event beside it until nobody reads this one: docs/CHANGING.md, \"A type of event\"";
    let none = Map::new();
    let map = |value: &Value| value.as_object().unwrap_or(&none).clone();
    let mut sentences = Vec::new();
    for part in ["channels", "components/messages"] {
        let pointer = format!("/{part}");
        let at = |document: &Value| map(document.pointer(&pointer).unwrap_or(&Value::Null));
        let kept = at(new);
        for (name, before) in at(committed) {
            match kept.get(&name) {
                None => sentences.push(format!("{name} is gone from {part}. {ADVICE}.")),
                Some(after)
                    if ["address", "bindings"]
                        .iter()
                        .any(|key| after[key] != before[key]) =>
                {
                    sentences.push(format!("{name} of {part} is sent in another way. {ADVICE}."));
                }
                Some(_) => {}
            }
        }
    }
    let schemas = |document: &Value| map(&document["components"]["schemas"]);
    let now = schemas(new);
    for (name, before) in schemas(committed) {
        let after = now.get(&name).unwrap_or(&Value::Null);
        let required = |schema: &Value, field: &str| {
            schema["required"]
                .as_array()
                .is_some_and(|fields| fields.iter().any(|known| known == field))
        };
        let (fields, fields_now) = (map(&before["properties"]), map(&after["properties"]));
        for (field, was) in &fields {
            match fields_now.get(field) {
                None => sentences.push(format!("{name} has lost its field {field}. {ADVICE}.")),
                Some(is) if without_words(is) != without_words(was) => {
                    sentences.push(format!(
                        "the field {field} of {name} has other values than before. {ADVICE}."
                    ));
                }
                Some(_) if required(&before, field) && !required(after, field) => {
                    sentences.push(format!("{name} may now lack its field {field}. {ADVICE}."));
                }
                Some(_) => {}
            }
        }
        for field in fields_now.keys() {
            let known = fields.contains_key(field) && required(&before, field);
            if required(after, field) && !known {
                sentences.push(format!(
                    "{name} now demands the field {field}, which messages in the queue lack: make it an Option, or give it a #[serde(default)]."
                ));
            }
        }
    }
    sentences
}

/// A schema without what only people read.
fn without_words(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut() {
        object.retain(|key, _| !["description", "example", "examples", "title"].contains(&key.as_str()));
    }
    schema
}

#[test]
fn the_committed_contract_is_that_of_the_types_and_breaks_no_consumer() {
    let written = fs::read_to_string(path()).unwrap_or_default();
    let new = document();
    if let Ok(committed) = serde_json::from_str::<Value>(&written) {
        let sentences = breaks(&committed, &new);
        assert!(sentences.is_empty(), "{}", sentences.join("\n"));
    }
    let text = serde_json::to_string_pretty(&new).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(path(), text).unwrap();
    } else {
        assert!(
            written == text,
            "docs/asyncapi.json is older than the types of events: UPDATE_DOCUMENTS=1 ./test.sh unit writes it"
        );
    }
}

#[test]
fn each_change_that_breaks_a_consumer_is_named() {
    let committed = document();
    assert_eq!(breaks(&committed, &committed), Vec::<String>::new());
    let created = "/components/schemas/BuyOrderCreated";
    // `null` takes the value away.
    for (pointer, key, value, sentence) in [
        (
            "/channels",
            "buy_order",
            Value::Null,
            "buy_order is gone from channels",
        ),
        (
            "/channels/buy_order",
            "address",
            json!("orders"),
            "buy_order of channels is sent in another way",
        ),
        (
            "/channels/buy_order/bindings/amqp/exchange",
            "type",
            json!("fanout"),
            "buy_order of channels is sent in another way",
        ),
        (
            "/components/messages",
            "buy_order_voided",
            Value::Null,
            "buy_order_voided is gone",
        ),
        (
            &*format!("{created}/properties"),
            "btc_rate",
            Value::Null,
            "lost its field btc_rate",
        ),
        (
            &*format!("{created}/properties"),
            "client_id",
            json!({"type": "string"}),
            "client_id of BuyOrderCreated has other values",
        ),
        (
            created,
            "required",
            json!(["id"]),
            "may now lack its field created_at",
        ),
        (
            "/components/schemas/TraceContext",
            "required",
            json!(["traceparent"]),
            "demands the field traceparent",
        ),
    ] {
        let mut new = committed.clone();
        let object = new.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            object.remove(key).unwrap();
        } else {
            object.insert(key.to_owned(), value);
        }
        let sentences = breaks(&committed, &new);
        assert!(
            sentences.iter().any(|found| found.contains(sentence)),
            "{sentence}: {sentences:?}"
        );
    }
}

#[test]
fn what_harms_nobody_may_change() {
    let committed = document();
    let mut new = committed.clone();
    let schema = &mut new["components"]["schemas"]["BuyOrderCreated"]["properties"];
    schema["note"] = json!({"type": "string"});
    schema["btc_rate"]["description"] = json!("Another word for it");
    new["components"]["messages"]["buy_order_noted"] = json!({"name": "buy_order_noted"});
    assert_eq!(breaks(&committed, &new), Vec::<String>::new());
}
