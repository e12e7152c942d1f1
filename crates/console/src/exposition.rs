//! Reads Prometheus' text format, as far as the services write it. The crates for it were last released in 2023 and before, and bring a
//! library of regular expressions.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use rust_decimal::Decimal;

/// The value of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    /// As it was written.
    value: String,
}

impl Sample {
    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(label, _)| label == name);
        label.map(|(_, value)| value.as_str())
    }

    /// The value, unless it is no number, not a number, or infinite.
    pub(crate) fn number(&self) -> Option<f64> {
        self.value.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// The value with all its digits, if it is a decimal.
    pub(crate) fn decimal(&self) -> Option<Decimal> {
        // A decimal may have underscores between its digits, which a number must not.
        self.number()?;
        let text = &self.value;
        text.parse().or_else(|_| Decimal::from_scientific(text)).ok()
    }
}

/// All series that a process shows. Lines that are malformed are left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exposition(Vec<Sample>);

impl Exposition {
    /// Reads a text. Bytes that are not UTF-8 are replaced.
    pub(crate) fn read(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(sample).collect())
    }

    /// The series of a metric.
    pub(crate) fn samples<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The value of the first series of a metric.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.samples(name).find_map(Sample::number)
    }

    /// The value of the first series of a metric that has this value of a label.
    pub(crate) fn labelled(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let mut labelled = self
            .samples(name)
            .filter(|sample| sample.label(label) == Some(value));
        labelled.find_map(Sample::number)
    }
}

/// `name{label="value",…} 1.5`, of which the labels may be missing.
fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at_checked(name_end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(labelled) => labels(labelled)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?;
    is_name(name).then(|| Sample {
        name: name.to_owned(),
        labels,
        value: value.to_owned(),
    })
}

/// The labels, and what is behind their closing brace.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, behind) = unescaped(quoted)?;
        labels.push((Some(name.trim()).filter(|name| is_name(name))?.to_owned(), value));
        rest = behind;
    }
}

/// A name of a metric or of a label.
fn is_name(name: &str) -> bool {
    let is_of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    !name.is_empty() && name.bytes().all(is_of_names)
}

/// The text up to the closing quotation mark, and what is behind that.
fn unescaped(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(index + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"# HELP a_total What it counts.\n# TYPE a_total counter\na_total{reason=\"no_price\",service=\"x\"} 3\n\
        a_total{reason=\"a \\\"b\\\" \\\\ {c},\\n=\"} 4 1764373200000\nb 12.34567891\nc{le=\"+Inf\"} +Inf\nd{} 0.00000001\n";

    #[test]
    fn series_are_read_with_their_labels_and_all_their_digits() {
        let read = Exposition::read(TEXT);
        assert_eq!(read.0.len(), 5);
        assert_eq!(read.labelled("a_total", "reason", "no_price"), Some(3.0));
        assert_eq!(
            read.labelled("a_total", "reason", "a \"b\" \\ {c},\n="),
            Some(4.0)
        );
        let decimal = |name| read.samples(name).next().unwrap().decimal().unwrap().to_string();
        assert_eq!(decimal("b"), "12.34567891");
        assert_eq!(decimal("d"), "0.00000001");
        assert_eq!(read.number("c"), None);
        let underscored = Exposition::read(b"e 1_000").0.remove(0);
        assert_eq!((underscored.number(), underscored.decimal()), (None, None));
        assert_eq!(read.number("a"), None);
    }

    #[test]
    fn malformed_lines_are_left_out() {
        for line in [
            "a",
            "{} 1",
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"",
            "a{b=\"c",
            "a{b=\"c\\",
            "a{b=\"c\"} ",
            "a{=\"c\"} 1",
            "a{\t,b=\"c\"} 1",
            "a-b 1",
            "",
        ] {
            assert_eq!(Exposition::read(line.as_bytes()).0, [], "{line:?}");
        }
        assert_eq!(Exposition::read(b"a{b=\"c\"}1\nx y\n").number("a"), Some(1.0));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>, cut in 0..TEXT.len(), at in 0..TEXT.len(), byte: u8) {
            Exposition::read(&bytes);
            let mut damaged = TEXT.to_vec();
            damaged[at] = byte;
            for text in [damaged.as_slice(), &TEXT[cut..], &TEXT[..cut]] {
                for sample in &Exposition::read(text).0 {
                    let _ = (sample.number(), sample.decimal());
                }
            }
        }
    }
}
