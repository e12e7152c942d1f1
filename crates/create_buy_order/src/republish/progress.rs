//! Progress: a bar on a terminal, else plain lines. On standard error, because standard output is for results.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Measured by ids, because counting the orders first would take as long as reading them.
pub(super) enum Progress {
    Bar { bar: ProgressBar, first_id: i64 },
    Lines { last_id: i64, next_line: Instant },
}

impl Progress {
    pub(super) fn over(first_id: i64, last_id: i64) -> Self {
        if !stderr().is_terminal() {
            return Self::Lines {
                last_id,
                next_line: Instant::now(),
            };
        }
        let bar = ProgressBar::new(u64::try_from(last_id - first_id + 1).unwrap_or_default());
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {msg}, {eta} left") {
            bar.set_style(style);
        }
        Self::Bar { bar, first_id }
    }

    /// `sent` orders were sent, the last one with this id.
    pub(super) fn reached(&mut self, id: i64, sent: usize) {
        match self {
            Self::Bar { bar, first_id } => {
                bar.set_position(u64::try_from(id - *first_id + 1).unwrap_or_default());
                bar.set_message(format!("{sent} orders, through id {id}"));
            }
            Self::Lines { last_id, next_line } if Instant::now() >= *next_line => {
                *next_line = Instant::now() + LINE_INTERVAL;
                // A closed standard error is no reason to stop.
                let _ = writeln!(stderr(), "{sent} orders sent, through id {id} of {last_id}");
            }
            Self::Lines { .. } => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Self::Bar { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}
