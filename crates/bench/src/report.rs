//! The report of a run: tables for people, JSON for programs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::bench::Bench;
use crate::figures::Figures;
use crate::machine::Machine;
use crate::targets::{self, Verdict};

/// All results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    quick: bool,
    took_s: u64,
    figures: Figures,
    targets: Vec<Verdict>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub async fn of(bench: &Bench, took: Duration) -> Self {
        Self {
            machine: Machine::this().await,
            quick: bench.quick,
            took_s: took.as_secs(),
            figures: bench.figures.clone(),
            targets: targets::judge(&bench.figures),
            notes: bench.notes().to_vec(),
            failures: bench.failures().to_vec(),
        }
    }

    /// The tables in Markdown.
    #[must_use]
    pub fn section(&self) -> String {
        let how = if self.quick {
            " A quick run: it shows that everything works, not how fast."
        } else {
            ""
        };
        let notes: String = self.notes.iter().map(|note| format!("- {note}\n")).collect();
        let gap = if notes.is_empty() { "" } else { "\n" };
        format!(
            "{} In {} s.{how}\n\n{}{gap}{notes}\n{}",
            self.machine.sentence(),
            self.took_s,
            self.figures.table(),
            targets::table(&self.targets)
        )
    }

    /// Writes everything as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let context = || format!("could not write {}", file.display());
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(context)?;
        }
        fs::write(file, serde_json::to_string_pretty(self)? + "\n").with_context(context)
    }
}
