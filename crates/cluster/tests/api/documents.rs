//! Everything that the alert rules and docs/operations.md refer to exists.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, Service, wait_until};

use super::support::metrics;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> anyhow::Result<String> {
    let path = root().join("docs").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Part of the Debian package `prometheus`, which scripts/ensure_servers.sh installs.
fn promtool(arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("docs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is missing: apt-get install prometheus")?;
    promtool
        .stdin
        .take()
        .context("no stdin")?
        .write_all(input.as_bytes())?;
    Ok(promtool.wait_with_output()?)
}

/// A cluster in which everything that is counted has happened once.
async fn used_cluster() -> anyhow::Result<Cluster> {
    let options = Options {
        services: Service::ALL.to_vec(),
        ..Options::default()
    };
    let cluster = Cluster::start(options).await?;
    let put = cluster.put_order(&cluster::new_order("USD", "10.00"));
    put.send().await?.error_for_status()?;
    wait_until("the order is in a page", Duration::from_secs(60), async || {
        let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
        Ok(cluster
            .http()
            .get(url)
            .send()
            .await?
            .text()
            .await?
            .contains("10.00"))
    })
    .await?;
    wait_until("the outbox was looked at", Duration::from_secs(60), async || {
        Ok(metrics(&cluster, Service::CreateBuyOrder)
            .await?
            .contains("\noutbox_events "))
    })
    .await?;
    Ok(cluster)
}

#[tokio::test]
async fn what_every_service_shows_is_clean_and_holds_all_that_the_documents_name() -> anyhow::Result<()> {
    let cluster = used_cluster().await?;
    let mut names = BTreeSet::from(["up".to_owned()]); // Prometheus' own
    for service in Service::ALL {
        let shown = metrics(&cluster, service).await?;
        let checked = promtool(&["check", "metrics"], &shown)?;
        ensure!(
            checked.status.success() && checked.stdout.is_empty() && checked.stderr.is_empty(),
            "{service:?}: {checked:?}"
        );
        for line in shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').context("a TYPE without a type")?;
            names.insert(name.to_owned());
            if kind == "histogram" {
                names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
        }
    }
    let rules = document("alerts.yml")?;
    let named = metrics_of_rules(&rules);
    ensure!(named.len() > 15, "too few are found: {named:?}");
    let of_operations = words_after(&document("operations.md")?, "metric `");
    ensure!(of_operations.len() > 15, "too few are found: {of_operations:?}");
    let missing: Vec<_> = named
        .union(&of_operations)
        .filter(|name| !names.contains(*name))
        .collect();
    ensure!(missing.is_empty(), "no service shows {missing:?}");
    Ok(())
}

/// The metrics in all `expr`: what is left without labels, durations, functions and keywords.
fn metrics_of_rules(rules: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut inside = false;
    for line in rules.lines() {
        let text = line.trim_start();
        match text.strip_prefix("expr:") {
            Some(_) => inside = true,
            None if text.starts_with("for:") || text.starts_with("labels:") => inside = false,
            None => {}
        }
        if inside {
            found.extend(metrics_of(text.trim_start_matches("expr:")));
        }
    }
    found
}

fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut depth = 0_u32;
    for character in expression.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = BTreeSet::new();
    let mut rest = plain.as_str();
    while let Some(start) = rest.find(|character: char| character.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if !after.starts_with('(') && (word.contains('_') || word == "up") {
            found.insert(word.to_owned());
        }
        rest = after;
    }
    found
}

fn words_after(text: &str, mark: &str) -> BTreeSet<String> {
    let names = text.split(mark).skip(1).filter_map(|rest| rest.split_once('`'));
    names
        .map(|(name, _)| name.split('{').next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn the_rules_are_valid_and_fire_when_they_should() -> anyhow::Result<()> {
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let checked = promtool(&arguments, "")?;
        ensure!(checked.status.success(), "{arguments:?}: {checked:?}");
    }
    let rules = document("alerts.yml")?;
    let tests = document("alerts_test.yml")?;
    for name in values(&rules, "- alert: ") {
        ensure!(
            tests.contains(&format!("alertname: {name}\n")),
            "no test in which {name} fires"
        );
    }
    Ok(())
}

fn values<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(mark))
}

#[test]
fn every_rule_leads_to_a_section_of_the_operations_manual() -> anyhow::Result<()> {
    let operations = document("operations.md")?;
    let headings: BTreeSet<String> = operations
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches(['#', ' ']).to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect();
    let rules = document("alerts.yml")?;
    let links: Vec<_> = values(&rules, "runbook_url: ").collect();
    ensure!(
        links.len() == values(&rules, "- alert: ").count(),
        "not every rule has a link: {links:?}"
    );
    for link in links {
        let anchor = link
            .strip_prefix("\"{{ $externalLabels.runbooks }}#")
            .and_then(|rest| rest.strip_suffix('"'))
            .context("not a link into operations.md")?;
        ensure!(headings.contains(anchor), "there is no section {anchor}");
    }
    Ok(())
}

#[test]
fn every_event_that_the_operations_manual_names_is_reported_somewhere() -> anyhow::Result<()> {
    let named = words_after(&document("operations.md")?, "event `");
    ensure!(named.len() > 5, "too few are found: {named:?}");
    let mut sources = String::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                sources.push_str(&std::fs::read_to_string(&path)?);
            }
        }
    }
    for event in named {
        ensure!(
            sources.contains(&format!("\"{event}\"")),
            "nothing reports {event}"
        );
    }
    Ok(())
}
