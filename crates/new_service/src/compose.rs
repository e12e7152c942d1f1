//! The edit of the compose files, line by line: a YAML library would lose their comments.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// The names of all compose files in `root`, sorted.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("docker-compose.") && name.ends_with(".yml") {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a compose file has an entry for the service.
pub(crate) fn has_service(text: &str, service: &str) -> bool {
    entry(&text.lines().collect::<Vec<_>>(), service).is_some()
}

/// The text of a compose file with a copy of the model's entry after the original; `None` where the model has none.
pub(crate) fn with_copy(text: &str, model: &str, name: &str) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let entry = entry(&lines, model)?;
    let copy: Vec<String> = lines[entry.clone()]
        .iter()
        .map(|line| rename(line, model, name))
        .collect();
    let end = entry.end;
    lines.splice(end..end, [""].into_iter().chain(copy.iter().map(String::as_str)));
    Some(lines.join("\n") + "\n")
}

/// The lines of a service's entry, without the blank lines after it.
fn entry(lines: &[&str], service: &str) -> Option<Range<usize>> {
    let header = lines.iter().position(|line| line.starts_with("services:"))?;
    let section = lines[header + 1..]
        .iter()
        .take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let key = format!("  {service}:");
    let start = header + 1 + section.clone().position(|line| line.starts_with(&key))?;
    let mut end = start + 1;
    while lines
        .get(end)
        .is_some_and(|line| line.is_empty() || line.starts_with("    "))
    {
        end += 1;
    }
    while lines[end - 1].is_empty() {
        end -= 1;
    }
    Some(start..end)
}

/// A line of the model's entry as the new entry has it.
fn rename(line: &str, model: &str, name: &str) -> String {
    // An anchor must not be defined twice.
    let line = match line.rsplit_once(": &") {
        Some((key, anchor)) if !anchor.contains(' ') => format!("{key}:"),
        _ => line.to_owned(),
    };
    match line.split_once(": ") {
        None if line == format!("  {model}:") => format!("  {name}:"),
        Some(("    image", image)) => {
            line.replace(image, &image.replace(&format!("/{model}"), &format!("/{name}")))
        }
        Some((key, value)) if key == format!("  {model}") => format!("  {name}: {value}"),
        Some((key, _)) if key.trim() == "SERVICE" => format!("{key}: {name}"),
        Some((key, _)) if key.trim() == "SERVICE_PORT" => format!("{key}: ${{{}_PORT}}", name.to_uppercase()),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_its_original_and_everything_else_stays() {
        let before = "\
x-old: &old
  old: 1

services:
  # The first.
  old:
    image: registry/old
    build:
      args:
        SERVICE: old

    environment: &environment
      SERVICE_PORT: ${OLD_PORT}
";
        let added = "
  new:
    image: registry/new
    build:
      args:
        SERVICE: new

    environment:
      SERVICE_PORT: ${NEW_PORT}
";
        let after = "\n  # The last.\n  last:\n    image: registry/old\n";
        for after in [after, ""] {
            let copied = with_copy(&[before, after].concat(), "old", "new");
            assert_eq!(copied, Some([before, added, after].concat()));
        }
        assert_eq!(
            with_copy("services:\n  old: *traced\n", "old", "new").as_deref(),
            Some("services:\n  old: *traced\n\n  new: *traced\n")
        );
        assert!(!has_service(before, "x-old") && !has_service(before, "image"));
    }
}
