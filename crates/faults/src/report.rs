//! The table of faults, in the terminal and in `docs/RELIABILITY.md`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use crate::audit::Damage;
use crate::ledger::{Entry, Outcome};
use crate::stage::Fault;

/// The results of one kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of the family.
    pub number: u8,
    /// Kind of fault. Empty for the time without a fault.
    pub kind: String,
    /// How often it was made.
    pub times: usize,
    /// Requests for orders, including repeats.
    pub requests: usize,
    /// Requests answered with an order.
    pub acknowledged: usize,
    /// Requests refused because of the cap, or because their order was voided.
    pub refused: usize,
    /// Requests without an answer, or answered with `503`.
    pub unknown: usize,
    /// Acknowledged orders that are not in the write model.
    pub lost: usize,
    /// Orders that exist twice.
    pub doubled: usize,
    /// The slowest recovery.
    pub recovered_after: Duration,
}

impl Row {
    fn new(number: u8, kind: &str) -> Self {
        Self {
            number,
            kind: kind.to_owned(),
            times: 0,
            requests: 0,
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            lost: 0,
            doubled: 0,
            recovered_after: Duration::ZERO,
        }
    }

    /// The rows of one run, in the order of its faults.
    #[must_use]
    pub fn of_run(
        number: u8,
        faults: &[Fault],
        entries: &[Entry],
        damage: &HashMap<Option<usize>, Damage>,
    ) -> Vec<Self> {
        let mut rows: Vec<Self> = Vec::new();
        let mut count = |kind: &str, fault: Option<usize>, recovered_after: Option<Duration>| {
            let index = rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
                rows.push(Self::new(number, kind));
                rows.len() - 1
            });
            let row = &mut rows[index];
            row.times += usize::from(recovered_after.is_some());
            row.recovered_after = row.recovered_after.max(recovered_after.unwrap_or_default());
            for entry in entries.iter().filter(|entry| entry.fault == fault) {
                row.requests += 1;
                match entry.outcome {
                    Outcome::Acknowledged(_) => row.acknowledged += 1,
                    Outcome::Refused | Outcome::Voided { .. } => row.refused += 1,
                    Outcome::Unknown(_) => row.unknown += 1,
                }
            }
            let damage = damage.get(&fault).copied().unwrap_or_default();
            row.lost += damage.lost;
            row.doubled += damage.doubled;
        };
        for (index, fault) in faults.iter().enumerate() {
            count(&fault.kind, Some(index), Some(fault.recovered_after));
        }
        count("", None, None);
        rows
    }

    fn add(&mut self, other: &Self) {
        self.times += other.times;
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.recovered_after = self.recovered_after.max(other.recovered_after);
    }
}

/// The rows of all runs in the order of the families. Rows of one kind are added up. The time without a fault is one row, and the sum of
/// all is the last.
#[must_use]
pub fn summary(rows: &[Row]) -> Vec<Row> {
    let mut order: BTreeMap<(bool, u8), Vec<Row>> = BTreeMap::new();
    for row in rows {
        let calm = row.kind.is_empty();
        let number = if calm { 0 } else { row.number };
        let family = order.entry((calm, number)).or_default();
        match family.iter_mut().find(|known| known.kind == row.kind) {
            Some(known) => known.add(row),
            None => family.push(Row {
                number,
                ..row.clone()
            }),
        }
    }
    let mut all: Vec<Row> = order.into_values().flatten().collect();
    let mut total = Row::new(0, "all");
    for row in &all {
        total.add(row);
    }
    all.push(total);
    all
}

/// The table in Markdown.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| # | fault | times | requests | acknowledged | refused | unknown | lost | doubled | seconds to recover, at most |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in summary(rows) {
        let (number, kind) = match row.kind.as_str() {
            "" => (String::new(), "(none at work)"),
            "all" => (String::new(), "**all**"),
            kind => (row.number.to_string(), kind),
        };
        let recovered = if row.times == 0 {
            String::new()
        } else {
            let tenths = row.recovered_after.as_millis().div_ceil(100);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let Row {
            times,
            requests,
            acknowledged,
            refused,
            unknown,
            lost,
            doubled,
            ..
        } = row;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {number} | {kind} | {times} | {requests} | {acknowledged} | {refused} | {unknown} | {lost} | {doubled} | {recovered} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8, kind: &str, requests: usize) -> Row {
        Row {
            requests,
            times: 1,
            ..Row::new(number, kind)
        }
    }

    #[test]
    fn rows_of_one_kind_are_added_up_and_families_stand_in_order() {
        let rows = [
            row(4, "kill", 1),
            row(1, "kill", 10),
            row(4, "kill", 2),
            row(1, "", 5),
            row(4, "", 6),
        ];
        let summary: Vec<_> = summary(&rows)
            .into_iter()
            .map(|row| (row.number, row.kind, row.requests))
            .collect();
        let expected = [(1, "kill", 10), (4, "kill", 3), (0, "", 11), (0, "all", 24)];
        assert_eq!(
            summary,
            expected.map(|(number, kind, requests)| (number, kind.to_owned(), requests))
        );
    }
}
