//! What was measured.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;

/// One figure, beside what it is held against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Of which measurement.
    pub group: &'static str,
    /// What of it.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what, for example `/s`; empty for a count.
    pub unit: &'static str,
    /// What it is held against, measured in the same run.
    pub against: Option<Against>,
    /// `value` as a part of what it is held against.
    pub ratio: Option<f64>,
}

/// What a figure is held against, in the same unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
}

/// All figures of a run, in the order in which they were measured.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(transparent)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a figure that stands by itself.
    pub fn add(&mut self, group: &'static str, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(group, name.into(), value, unit, None);
    }

    /// Adds a figure and what it is held against.
    pub fn add_against(
        &mut self,
        group: &'static str,
        name: impl Into<String>,
        (value, unit): (f64, &'static str),
        (other, other_value): (impl Into<String>, f64),
    ) {
        let against = Against {
            name: other.into(),
            value: other_value,
        };
        self.push(group, name.into(), value, unit, Some(against));
    }

    /// Adds latencies in µs and what they are held against, each pair under what it is, in ms.
    pub fn add_latencies(
        &mut self,
        group: &'static str,
        name: &str,
        other: &str,
        latencies_us: &[(&str, f64, f64)],
    ) {
        for (what, ours_us, theirs_us) in latencies_us {
            let (ours, theirs) = ((ours_us / 1000.0, "ms"), theirs_us / 1000.0);
            self.add_against(group, format!("{name}, {what}"), ours, (other, theirs));
        }
    }

    fn push(
        &mut self,
        group: &'static str,
        name: String,
        value: f64,
        unit: &'static str,
        against: Option<Against>,
    ) {
        let ratio = against
            .as_ref()
            .map(|against| value / against.value)
            .filter(|ratio| ratio.is_finite());
        let figure = Figure {
            group,
            name,
            value,
            unit,
            against,
            ratio,
        };
        self.0.push(figure);
    }

    /// The figure of this group and name.
    #[must_use]
    pub fn get(&self, group: &str, name: &str) -> Option<&Figure> {
        self.0
            .iter()
            .find(|figure| figure.group == group && figure.name == name)
    }

    /// The table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("| | measurement | figure | against | ratio |\n|---|---|---|---|---|\n");
        for figure in &self.0 {
            let Figure {
                group,
                name,
                value,
                unit,
                against,
                ratio,
            } = figure;
            let against = against.as_ref().map_or_else(String::new, |against| {
                format!("{}: {}", against.name, with_unit(against.value, unit))
            });
            let ratio = ratio.map_or_else(String::new, rounded);
            let figure = with_unit(*value, unit);
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {group} | {name} | {figure} | {against} | {ratio} |");
        }
        text
    }
}

/// A count as a figure: exact up to 2^53.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no count of ours is that large")]
pub fn figure(count: u64) -> f64 {
    count as f64
}

/// The value that so many thousandths of all do not pass; of sorted values.
///
/// # Errors
/// When there are none.
pub fn percentile(sorted: &[u32], thousandths: usize) -> anyhow::Result<f64> {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    let value = sorted.get(rank.saturating_sub(1)).context("no latencies")?;
    Ok(f64::from(*value))
}

/// The one in the middle; of an even number, the lower of the two there.
///
/// # Errors
/// When there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> anyhow::Result<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().div_ceil(2).saturating_sub(1);
    sorted.get(middle).copied().context("no values")
}

/// A figure with its unit, as people read it.
#[must_use]
pub fn with_unit(value: f64, unit: &str) -> String {
    let space = if unit.is_empty() || unit.starts_with('/') {
        ""
    } else {
        " "
    };
    format!("{}{space}{unit}", rounded(value))
}

/// Three digits or so; whole numbers in full, by thousands.
fn rounded(value: f64) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude >= 100.0 || magnitude.fract() == 0.0 => 0,
        magnitude if magnitude >= 10.0 => 1,
        magnitude if magnitude >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_with_what_it_is_held_against() {
        let mut figures = Figures::default();
        figures.add_against("orders", "64 connections", (12_345.6, "/s"), ("pgbench", 2_000.0));
        figures.add("orders", "failed", 0.0, "");
        let table = figures.table();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| orders | 64 connections | 12,346/s | pgbench: 2,000/s | 6.17 |",
                "| orders | failed | 0 |  |  |",
            ]
        );
        assert!(
            figures
                .get("orders", "failed")
                .is_some_and(|figure| figure.ratio.is_none())
        );
    }

    #[test]
    fn the_median_is_one_of_the_values() -> anyhow::Result<()> {
        let medians = [median([3.0, 1.0, 2.0])?, median([4.0, 1.0, 3.0, 2.0])?];
        assert_eq!(medians.map(rounded), ["2", "2"]);
        assert!(median([]).is_err());
        Ok(())
    }

    #[test]
    fn numbers_are_rounded_to_what_can_be_told() {
        let texts = [1_234_567.8, 100.4, 99.96, 1.005, 0.012_34, 3.0, -1234.5].map(rounded);
        assert_eq!(
            texts,
            ["1,234,568", "100", "100.0", "1.00", "0.0123", "3", "-1,234"]
        );
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() -> anyhow::Result<()> {
        let sorted: Vec<u32> = (1..=1000).collect();
        let of = |thousandths| percentile(&sorted, thousandths).map(|value| format!("{value}"));
        assert_eq!([of(500)?, of(990)?, of(999)?], ["500", "990", "999"]);
        assert_eq!(format!("{}", percentile(&[7], 500)?), "7");
        assert!(percentile(&[], 500).is_err());
        Ok(())
    }
}
