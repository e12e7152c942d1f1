//! Reads `.env` like Compose 1.29 and v2, and refuses what they read differently.
//!
//! Not with `dotenvy`, which treats `$` and backslashes in unquoted values differently from both: see docs/decisions/0004. `scripts/settings.sh`
//! follows the same rules.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

const ALTERNATIVE: &str = "Set the variable in the environment instead, where no character is special";

/// The variables of the file by name. If a name occurs twice, the last line counts.
pub(super) fn parse(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, text) = line
            .split_once('=')
            .with_context(|| format!("line {number}: no `=`"))?;
        let name = name.trim();
        let value = value(text.trim_ascii_start()).with_context(|| format!("line {number}, {name}"))?;
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

fn value(text: &str) -> anyhow::Result<String> {
    if let Some(quoted) = text.strip_prefix('\'') {
        return single_quoted(quoted);
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = quoted.split_once('"').context("the closing `\"` is missing")?;
        ensure!(
            !value.contains(['$', '\\']),
            "`$` and `\\` are special within double quotes: use single quotes"
        );
        return ended(value.to_owned(), rest);
    }
    // A comment may follow the value.
    let value = text
        .split_once(" #")
        .map_or(text, |(before, _)| before)
        .trim_ascii_end();
    ensure!(
        !value.contains('$') && !value.contains("\t#") && value.trim() == value,
        "`$`, a tab before `#`, and unusual blanks at the ends are special without quotes: put the value into single quotes"
    );
    Ok(value.to_owned())
}

fn single_quoted(quoted: &str) -> anyhow::Result<String> {
    let mut value = String::new();
    let mut rest = quoted.chars();
    while let Some(character) = rest.next() {
        match character {
            '\'' if value.contains("${") => {
                bail!("Compose 1.29 replaces `${{` even within single quotes. {ALTERNATIVE}")
            }
            '\'' => return ended(value, rest.as_str()),
            '\\' if rest.as_str().starts_with('\'') => {
                rest.next();
                value.push('\'');
            }
            '\\' if rest.as_str().starts_with('\\') => {
                bail!("Compose 1.29 and v2 differ on `\\\\` within quotes. {ALTERNATIVE}")
            }
            plain => value.push(plain),
        }
    }
    bail!("the closing `'` is missing: within single quotes write `\\'` for `'`")
}

fn ended(value: String, rest: &str) -> anyhow::Result<String> {
    let rest = rest.trim_ascii_start();
    ensure!(
        rest.is_empty() || rest.starts_with('#'),
        "there is text after the closing quote: within single quotes write `\\'` for `'`"
    );
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn values_are_read_as_compose_reads_them() {
        let read = parse("# note\n\nA=1\nB = \"two # words\"\nC='x'\nD=a=b # why\nexport E=\n").unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two # words"),
                ("C", "x"),
                ("D", "a=b"),
                ("E", "")
            ]
        );
    }

    #[test]
    fn quotes_keep_what_a_shell_or_a_comment_would_take_and_a_difference_between_the_composes_is_refused() {
        for (text, value) in [
            ("pa#ss", "pa#ss"),
            ("#", "#"),
            ("pa\\ss\\", "pa\\ss\\"),
            ("it's", "it's"),
            ("'pa #ss' # why", "pa #ss"),
            ("' $a `b` $(c) '", " $a `b` $(c) "),
            (r"'it\'s'", "it's"),
            (r"'a\b'", r"a\b"),
            ("\"it's # 1\"", "it's # 1"),
            ("'ä€😀'", "ä€😀"),
            ("''", ""),
        ] {
            assert_eq!(parse(&format!("A={text}\r\n")).unwrap()["A"], value, "{text}");
        }
        for text in [
            "a$b", "a\t#b", "\"a$b\"", r#""a\b""#, r"'a\\b'", "'${a}'", "'a", r"'a\'", "\"a", "'it's'",
            "\"a\"b",
        ] {
            let refused = parse(&format!("\nA={text}\n")).map_err(|error| format!("{error:#}"));
            assert!(
                refused.as_ref().is_err_and(|said| said.contains("line 2, A: ")),
                "{text}: {refused:?}"
            );
        }
    }

    /// Values with each printable ASCII character and some others: at the beginning, in the middle, at the end, doubled, and after a blank.
    fn values() -> Vec<String> {
        let characters = (' '..='~').chain("äßéЖ漢€😀\u{301}\u{a0}".chars());
        let mut values: Vec<String> = characters
            .clone()
            .flat_map(|c| [format!("{c}a{c}{c}b {c}c"), format!("ab{c}")])
            .collect();
        values.push(characters.collect());
        values
    }

    fn quoted(value: &str) -> String {
        format!("'{}'", value.replace('\'', "\\'"))
    }

    /// Each value, and the reason why a line is refused.
    #[test]
    fn the_scripts_read_and_refuse_values_as_the_native_cluster_does() {
        let forms = |value: String| {
            let quoted = format!("{} # why", quoted(&value));
            [format!("\"{value}\""), format!("'{value}'"), quoted, value]
        };
        let mut texts: Vec<String> = values().into_iter().flat_map(forms).collect();
        texts.extend(
            [
                "",
                " ",
                "'a' b",
                "\"a\" b",
                "a #b",
                "a\t#b",
                "a\u{b}",
                "\u{3000}a",
                "a\u{2003}",
                "'a",
            ]
            .map(str::to_owned),
        );
        let script = r#"set -euo pipefail; . scripts/settings.sh
            for text; do read_value "$text"; if [ -z "$problem" ]; then printf 'read %s\0' "$value"; else printf 'refused %s\0' "$problem"; fi; done"#;
        let ended = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(&texts)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let said = String::from_utf8(ended.stdout).unwrap();
        let expected = texts.iter().map(|text| match value(text.trim_ascii()) {
            Ok(value) => format!("read {value}"),
            Err(problem) => format!("refused {problem}"),
        });
        for ((said, expected), text) in said.split_terminator('\0').zip(expected).zip(&texts) {
            assert_eq!(said, expected, "{text}");
        }
        assert_eq!(said.split_terminator('\0').count(), texts.len());
        let refused = said
            .split_terminator('\0')
            .filter(|said| said.starts_with("refused "));
        assert!(refused.count() > 20 && texts.len() > 800, "{}", texts.len());
    }

    #[test]
    fn the_scripts_read_the_file_as_the_native_cluster_does() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("scripts")).unwrap();
        let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/settings.sh");
        fs::copy(settings, folder.path().join("scripts/settings.sh")).unwrap();
        let mut expected = Vec::new();
        let mut file = String::new();
        let mut names = Vec::new();
        for value in values() {
            for text in [
                value.clone(),
                format!("\"{value}\""),
                format!("{} # why", quoted(&value)),
            ] {
                // A line that is refused here stops the native cluster.
                let Ok(read) = parse(&format!("A={text}")) else {
                    continue;
                };
                let name = format!("V{}", names.len());
                file.push_str(&format!("{name}={text}\n"));
                expected.push(read["A"].clone());
                names.push(name);
            }
        }
        assert!(names.len() > 550, "{}", names.len());
        fs::write(folder.path().join(".env"), file).unwrap();
        let script =
            r#"set -euo pipefail; . scripts/settings.sh; for name; do setting "$name"; printf '\0'; done"#;
        let ended = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(&names)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let text = String::from_utf8(ended.stdout).unwrap();
        let read: Vec<&str> = text.split_terminator('\0').collect();
        assert_eq!(read, expected);
    }
}
