mod voids;

use super::*;

fn row(id: i64) -> Row {
    Row {
        id,
        external_id: Uuid::from_u128(id.unsigned_abs().into()),
        client_id: 1,
        created_at: format!("2026-11-23T15:37:32.{id:06}Z"),
        currency_id: 1,
        currency: "USD".to_owned(),
        currency_amount: "1.00".to_owned(),
        btc_rate: "48478.88000000".to_owned(),
        btc_amount: "0.00002063".to_owned(),
        voided_at: None,
    }
}

fn identity(key: u128) -> Identity {
    Identity {
        currency: "USD",
        cents: 100,
        key: Uuid::from_u128(key),
    }
}

fn key(of: &Identity, buy_order_id: i64) -> Key {
    Key {
        currency: of.currency.to_owned(),
        currency_amount: of.amount(),
        idempotence_key: of.key,
        buy_order_id,
    }
}

fn acknowledged(row: &Row) -> Outcome {
    Outcome::Acknowledged(Order {
        id: row.external_id,
        created_at: row.created_at.clone(),
        currency: row.currency.clone(),
        currency_amount: row.currency_amount.clone(),
        btc_rate: row.btc_rate.clone(),
        btc_amount: row.btc_amount.clone(),
    })
}

fn entry(identity: Identity, outcome: Outcome) -> Entry {
    Entry {
        identity,
        fault: None,
        sent_at: std::time::Instant::now(),
        took: std::time::Duration::ZERO,
        outcome,
    }
}

fn found(orders: &[Row], keys: &[Key], entries: &[Entry]) -> (Vec<String>, Damage) {
    let violations = Violations::default();
    let damage = Book::new(orders, keys).check(entries, &violations);
    (
        violations.sentences(),
        damage.get(&None).copied().unwrap_or_default(),
    )
}

#[test]
fn a_book_that_agrees_with_the_ledger_is_right() {
    let entries = [
        entry(identity(1), acknowledged(&row(1))),
        entry(identity(2), Outcome::Unknown("no answer".to_owned())),
        entry(identity(3), Outcome::Refused),
    ];
    let keys = [key(&identity(1), 1), key(&identity(2), 2)];
    assert_eq!(
        found(&[row(1), row(2)], &keys, &entries),
        (Vec::new(), Damage::default())
    );
}

#[test]
fn a_lost_order_is_found() {
    let (sentences, damage) = found(&[], &[], &[entry(identity(1), acknowledged(&row(1)))]);
    assert!(sentences[0].starts_with("I1: "), "{sentences:?}");
    assert_eq!(damage, Damage { lost: 1, doubled: 0 });
}

#[test]
fn an_order_that_differs_from_its_answer_is_found() {
    let mut other = row(1);
    other.btc_amount = "0.00002064".to_owned();
    let (sentences, _) = found(
        &[row(1)],
        &[key(&identity(1), 1)],
        &[entry(identity(1), acknowledged(&other))],
    );
    assert!(sentences[0].starts_with("I1: "), "{sentences:?}");
}

#[test]
fn a_doubled_order_is_found() {
    let entries = [
        entry(identity(1), acknowledged(&row(1))),
        entry(identity(1), acknowledged(&row(2))),
    ];
    let (sentences, damage) = found(&[row(1), row(2)], &[key(&identity(1), 1)], &entries);
    assert!(
        sentences
            .iter()
            .any(|sentence| sentence.starts_with("I2: answered with two")),
        "{sentences:?}"
    );
    assert!(
        sentences
            .iter()
            .any(|sentence| sentence.starts_with("I2: no client")),
        "{sentences:?}"
    );
    assert_eq!(damage.doubled, 1);
}

#[test]
fn a_refused_order_in_the_book_is_found() {
    let (sentences, _) = found(
        &[row(1)],
        &[key(&identity(1), 1)],
        &[entry(identity(1), Outcome::Refused)],
    );
    assert_eq!(sentences.len(), 1);
    assert!(sentences[0].starts_with("I2: refused"), "{sentences:?}");
}

#[test]
fn models_that_differ_are_found() {
    let violations = Violations::default();
    let mut changed = row(2);
    changed.btc_rate = "48478.89000000".to_owned();
    let read = [row(1), changed, row(4)];
    compare(&[row(1), row(2), row(3)], &read, |row| row.id, &violations);
    assert_eq!(violations.sentences().len(), 3, "{:?}", violations.sentences());
}
