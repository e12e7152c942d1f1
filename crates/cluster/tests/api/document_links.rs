//! Every link within the repository leads somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The ids that a renderer gives to the headings of a Markdown document.
pub(crate) fn heading_ids(document: &str) -> BTreeSet<String> {
    let titles = document.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches(['#', ' ']).to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

/// The targets of `[text](target)` that are no addresses of the internet.
fn links(document: &str) -> Vec<&str> {
    let targets = document.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://")).collect()
}

fn documents() -> anyhow::Result<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for folder in [
        "",
        "docs",
        "docs/decisions",
        "docker/standin",
        "crates/fluent_logger",
    ] {
        for entry in std::fs::read_dir(root().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "md") {
                documents.push(path);
            }
        }
    }
    Ok(documents)
}

#[test]
fn every_link_of_a_document_leads_to_a_file_and_a_heading_of_it() -> anyhow::Result<()> {
    let mut checked = 0;
    for path in documents()? {
        let document = std::fs::read_to_string(&path)?;
        let folder = path.parent().context("a document is in a folder")?;
        for link in links(&document) {
            let (file, id) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            ensure!(
                target.exists(),
                "{}: the link {link} leads nowhere",
                path.display()
            );
            if !id.is_empty() {
                let ids = heading_ids(&std::fs::read_to_string(&target)?);
                ensure!(
                    ids.contains(id),
                    "{}: the link {link} leads to no heading",
                    path.display()
                );
            }
            checked += 1;
        }
    }
    ensure!(checked > 50, "too few links are found: {checked}");
    Ok(())
}
