//! Targets for the figures, on a machine with 2 cores that also generates the load. They are shown, never asserted, because other load on the
//! machine is unknown.

use serde::Serialize;

use crate::figures::{Figures, with_unit};

/// A target, and whether a run meets it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The target.
    pub target: &'static str,
    /// The measured value. `None` if it was not measured.
    pub measured: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// Whether it is met.
    pub met: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Value(&'static str),
    Ratio,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};
use Part::{Ratio, Value};

/// Text, group and name of the figure, which part of it, and its bound.
type Target = (&'static str, &'static str, &'static str, Part, Bound);

const TARGETS: &[Target] = &[
    (
        "orders accepted, 64 connections: at least 8,000/s",
        "orders",
        "64 connections",
        Value("/s"),
        AtLeast(8_000.0),
    ),
    (
        "orders accepted, 64 connections: at least 0.5 × pgbench calling accept_orders with 64 orders",
        "orders",
        "64 connections beside batches",
        Ratio,
        AtLeast(0.5),
    ),
    (
        "orders accepted, 64 connections: at least 4 × pgbench calling accept_orders with one at 32 clients",
        "orders",
        "64 connections beside 32 clients",
        Ratio,
        AtLeast(4.0),
    ),
    (
        "orders accepted, 64 connections: p99 at most 60 ms",
        "orders",
        "64 connections, p99",
        Value("ms"),
        AtMost(60.0),
    ),
    (
        "orders accepted: none fails",
        "orders",
        "failed",
        Value(""),
        AtMost(0.0),
    ),
    (
        "one client, one connection: p50 at most 0.90 ms",
        "orders",
        "1 connection, p50",
        Value("ms"),
        AtMost(0.90),
    ),
    (
        "orders accepted with a token on each, 64 connections: at least 0.95 × without",
        "tokens",
        "64 connections, with a token",
        Ratio,
        AtLeast(0.95),
    ),
    (
        "orders end to end, sustained: at least 7,500/s",
        "end_to_end",
        "sustained",
        Value("/s"),
        AtLeast(7_500.0),
    ),
    (
        "orders end to end, sustained: lag p99 at most 50 ms",
        "end_to_end",
        "sustained, lag p99",
        Value("ms"),
        AtMost(50.0),
    ),
    (
        "after a burst of 10 s at full speed: drained in at most 10 s",
        "end_to_end",
        "drained after a burst",
        Value("s"),
        AtMost(10.0),
    ),
    (
        "at 500 orders/s: lag p99 at most 50 ms",
        "end_to_end",
        "500/s, lag p99",
        Value("ms"),
        AtMost(50.0),
    ),
    (
        "pages of 10, 64 connections: at least 15,000/s",
        "pages",
        "10 rows",
        Value("/s"),
        AtLeast(15_000.0),
    ),
    (
        "pages of 10, 64 connections: at least 0.9 × pgbench with the same SELECT",
        "pages",
        "10 rows",
        Ratio,
        AtLeast(0.9),
    ),
    (
        "pages of 100, 64 connections: at least 0.8 × pgbench with the same SELECT",
        "pages",
        "100 rows",
        Ratio,
        AtLeast(0.8),
    ),
    (
        "page at a depth of 10 M rows: p50 at most 1.15 × that of the first",
        "depth",
        "10 M rows, p50",
        Ratio,
        AtMost(1.15),
    ),
    (
        "orders with 10 M stored: at least 0.9 × with none",
        "growth",
        "10 M orders stored",
        Ratio,
        AtLeast(0.9),
    ),
    (
        "two replicas of create_buy_order: at least 1.0 × one",
        "replicas",
        "create_buy_order, 2",
        Ratio,
        AtLeast(1.0),
    ),
    (
        "four replicas of create_buy_order: at least 0.9 × one",
        "replicas",
        "create_buy_order, 4",
        Ratio,
        AtLeast(0.9),
    ),
    (
        "processors, of an order from its request to its projection: at most 220 µs of all processes",
        "per_order",
        "CPU, all of these",
        Value("µs"),
        AtMost(220.0),
    ),
    (
        "memory of the five services after the load: at most 80 MB together",
        "footprint",
        "memory of all services, after the load",
        Value("MB"),
        AtMost(80.0),
    ),
    (
        "memory of the five services when idle: at most 55 MB together",
        "footprint",
        "memory of all services, idle",
        Value("MB"),
        AtMost(55.0),
    ),
    (
        "healthy after start, databases up: at most 0.5 s each",
        "footprint",
        "start to healthy, slowest of all",
        Value("ms"),
        AtMost(500.0),
    ),
];

/// Compares the figures with the targets.
#[must_use]
pub fn judge(figures: &Figures) -> Vec<Verdict> {
    TARGETS
        .iter()
        .map(|(target, group, name, part, bound)| {
            let figure = figures.get(group, name);
            let (measured, unit) = match part {
                Value(unit) => (figure.map(|figure| figure.value), *unit),
                Ratio => (figure.and_then(|figure| figure.ratio), "×"),
            };
            Verdict {
                target,
                measured,
                unit,
                met: measured.map(|measured| match bound {
                    AtLeast(min) => measured >= *min,
                    AtMost(max) => measured <= *max,
                }),
            }
        })
        .collect()
}

/// The table in Markdown.
#[must_use]
pub fn table(verdicts: &[Verdict]) -> String {
    let row = |verdict: &Verdict| {
        let measured = verdict.measured.map_or_else(
            || "not measured".to_owned(),
            |measured| with_unit(measured, verdict.unit),
        );
        let met = match verdict.met {
            None => "",
            Some(true) => "yes",
            Some(false) => "**no**",
        };
        format!("| {} | {measured} | {met} |\n", verdict.target)
    };
    let rows: String = verdicts.iter().map(row).collect();
    format!("| target | measured | met |\n|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let mut figures = Figures::default();
        figures.begin_group("pages");
        figures.add_against("10 rows", (10_000.0, "/s"), ("pgbench", 11_000.0));
        let met: Vec<_> = judge(&figures)
            .into_iter()
            .filter(|verdict| verdict.target.starts_with("pages of 10,"))
            .map(|verdict| verdict.met)
            .collect();
        assert_eq!(met, [Some(false), Some(true)]);
        assert!(
            judge(&Figures::default())
                .iter()
                .all(|verdict| verdict.met.is_none())
        );
    }
}
