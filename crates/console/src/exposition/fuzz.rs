//! What is promised of every text that says what a process measures.

use super::{Exposition, Sample};

/// What is read of a text is read the same when it is written again, and a decimal is a number, too.
///
/// # Panics
///
/// If that is not so.
pub fn exposition(data: &[u8]) {
    let read = Exposition::read(data);
    let written: String = read.0.iter().map(written).collect();
    assert_eq!(Exposition::read(written.as_bytes()).0, read.0, "{written}");
    for sample in &read.0 {
        assert!(
            sample.decimal().is_none() || sample.number().is_some(),
            "{sample:?}"
        );
    }
}

fn written(sample: &Sample) -> String {
    let labels = sample.labels.iter().map(|(name, value)| {
        let escaped = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{escaped}\"")
    });
    let labels: Vec<String> = labels.collect();
    format!("{}{{{}}} {}\n", sample.name, labels.join(","), sample.value)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_keeps_the_promise() {
        fuzz::replay("exposition", super::exposition);
    }
}
