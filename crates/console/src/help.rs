//! Where `docs/operations.md` says what to do: the ids of its headings.

pub(crate) const NOT_READY: &str = "a-service-is-not-ready-or-down";
pub(crate) const WRITE_MODEL: &str = "the-write-model-is-away-full-or-slow";
pub(crate) const READ_MODEL: &str = "the-read-model-is-away";
pub(crate) const BROKER_AWAY: &str = "the-broker-is-away";
pub(crate) const BROKER_BLOCKED: &str = "the-broker-is-blocked";
pub(crate) const DECLARED_OTHERWISE: &str = "a-queue-is-declared-otherwise";
pub(crate) const OUTBOX: &str = "the-outbox-grows-or-the-relay-is-stuck";
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
pub(crate) const LETTERS_REFUSED: &str = "dead-letters-are-refused";
pub(crate) const LAG: &str = "the-projection-lags";
pub(crate) const NO_PRICES: &str = "no-prices";
pub(crate) const PRICE_DEVIATES: &str = "a-price-is-far-from-the-last-one";
pub(crate) const CLIENTS_REFUSED: &str = "clients-are-refused";
pub(crate) const BOOK_FULL: &str = "the-book-is-full";
pub(crate) const OLD_SCHEMA: &str = "the-schema-is-older-than-a-service";

/// For a sentence of `/readyz`.
pub(crate) fn of_dependency(fault: &str) -> &'static str {
    match fault.split(' ').next() {
        Some("write_model") => WRITE_MODEL,
        Some("read_model") => READ_MODEL,
        Some("broker") => BROKER_AWAY,
        Some("coinbase") => NO_PRICES,
        Some("issuer_keys") => CLIENTS_REFUSED,
        _ => NOT_READY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_one_of_a_heading() {
        let this = include_str!("help.rs");
        let ids: Vec<&str> = this
            .lines()
            .filter_map(|line| line.strip_prefix("pub(crate) const ")?.split('"').nth(1))
            .collect();
        assert_eq!(ids.len(), 15);
        for id in ids {
            let heading = format!(" id=\"{id}\"");
            assert!(
                crate::operations::PAGE.contains(&heading),
                "no heading has the id {id}"
            );
        }
    }

    #[test]
    fn a_dependency_has_its_own_section() {
        assert_eq!(of_dependency("write_model is read-only"), WRITE_MODEL);
        assert_eq!(of_dependency("something new is away"), NOT_READY);
    }
}
