//! The measured figures.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;

/// One figure, and the figure that it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// The group of measurements.
    pub group: &'static str,
    /// The name within the group.
    pub name: String,
    /// The value.
    pub value: f64,
    /// The unit, for example `/s`. Empty for a count.
    pub unit: &'static str,
    /// What it is compared with, measured in the same run.
    pub against: Option<Against>,
    /// `value` divided by the value that it is compared with.
    pub ratio: Option<f64>,
}

/// What a figure is compared with, in the same unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Against {
    /// The name.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// All figures of a run, in the order of measurement.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(transparent)]
pub struct Figures {
    all: Vec<Figure>,
    #[serde(skip)]
    group: &'static str,
}

impl Figures {
    /// Sets the group of the figures that are added from now on.
    pub fn begin_group(&mut self, group: &'static str) {
        self.group = group;
    }

    /// Adds a figure that is not compared with anything.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, None);
    }

    /// Adds a figure and what it is compared with.
    pub fn add_against(
        &mut self,
        name: impl Into<String>,
        (value, unit): (f64, &'static str),
        (other, other_value): (impl Into<String>, f64),
    ) {
        let against = Against {
            name: other.into(),
            value: other_value,
        };
        self.push(name.into(), value, unit, Some(against));
    }

    /// Adds latencies and what they are compared with. Each element is a name, our latency and theirs, in µs; the figures are in ms.
    pub fn add_latencies(&mut self, name: &str, other: &str, latencies_us: &[(&str, f64, f64)]) {
        for (what, ours_us, theirs_us) in latencies_us {
            let (ours, theirs) = ((ours_us / 1000.0, "ms"), theirs_us / 1000.0);
            self.add_against(format!("{name}, {what}"), ours, (other, theirs));
        }
    }

    fn push(&mut self, name: String, value: f64, unit: &'static str, against: Option<Against>) {
        let ratio = against
            .as_ref()
            .map(|against| value / against.value)
            .filter(|ratio| ratio.is_finite());
        let figure = Figure {
            group: self.group,
            name,
            value,
            unit,
            against,
            ratio,
        };
        self.all.push(figure);
    }

    /// The figure with this group and name.
    #[must_use]
    pub fn get(&self, group: &str, name: &str) -> Option<&Figure> {
        self.all
            .iter()
            .find(|figure| figure.group == group && figure.name == name)
    }

    /// The table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("| | measurement | figure | against | ratio |\n|---|---|---|---|---|\n");
        for figure in &self.all {
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

/// Converts a count, exactly up to 2^53.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no count of ours is that large")]
pub fn figure(count: u64) -> f64 {
    count as f64
}

/// Bytes in MB.
#[must_use]
pub fn megabytes(bytes: u64) -> f64 {
    figure(bytes) / 1e6
}

/// A percentile, in thousandths, of sorted values.
///
/// # Errors
/// When there are none.
pub fn percentile(sorted: &[u32], thousandths: usize) -> anyhow::Result<f64> {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    let value = sorted.get(rank.saturating_sub(1)).context("no latencies")?;
    Ok(f64::from(*value))
}

/// The median. For an even number of values it is the lower of the two in the middle.
///
/// # Errors
/// When there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> anyhow::Result<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().div_ceil(2).saturating_sub(1);
    sorted.get(middle).copied().context("no values")
}

/// Formats a value with its unit.
#[must_use]
pub fn with_unit(value: f64, unit: &str) -> String {
    let space = if unit.is_empty() || unit.starts_with('/') {
        ""
    } else {
        " "
    };
    format!("{}{space}{unit}", rounded(value))
}

/// Rounds to about three digits. Whole numbers are kept, with thousands separators.
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
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
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
    fn a_figure_is_shown_with_what_it_is_compared_with() {
        let mut figures = Figures::default();
        figures.begin_group("orders");
        figures.add_against("64 connections", (12_345.6, "/s"), ("pgbench", 2_000.0));
        figures.add("failed", 0.0, "");
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
    fn numbers_are_rounded_to_about_three_digits() {
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
