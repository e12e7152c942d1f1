//! A log file of a bounded size.
//!
//! Not a crate: `tracing-appender` rotates only by time, and the rest is the dozen lines below.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Maximum size of one file: that of a container's log in docker-compose.yml.
const MAX_BYTES: u64 = 10_000_000;
/// Rotated files that are kept: `name.1.log` is the newest.
const ROTATED_FILES: u32 = 2;

/// A file to which lines are appended. When it is full, it is renamed and a new one is started, which `tail -F` follows.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::bounded(path, MAX_BYTES).with_context(|| format!("could not open {}", path.display()))
    }

    fn bounded(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            max_bytes,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn add(&mut self, line: &str) -> io::Result<()> {
        let written = format!("{line}\n");
        let length = u64::try_from(written.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(written.as_bytes())?;
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..ROTATED_FILES).rev() {
            // It may not exist yet.
            let _ = fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
        }
        fs::rename(&self.path, rotated(&self.path, 1))?;
        *self = Self::bounded(&self.path, self.max_bytes)?;
        Ok(())
    }
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("{number}.log"))
}

/// Deletes the rotated files of the previous run.
pub(crate) fn remove_rotated(path: &Path) {
    for number in 1..=ROTATED_FILES {
        let _ = fs::remove_file(rotated(path, number));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_last_lines_in_files_of_a_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.log");
        let mut log = LogFile::bounded(&path, 1000).unwrap();
        for number in 0..10_000 {
            log.add(&format!("line {number}")).unwrap();
        }
        // A line that is longer than a file is kept complete.
        log.add(&"x".repeat(3000)).unwrap();
        log.add("the last").unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["queue.1.log", "queue.2.log", "queue.log"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "the last\n");
        assert_eq!(fs::read_to_string(rotated(&path, 1)).unwrap().len(), 3001);
        let before = fs::read_to_string(rotated(&path, 2)).unwrap();
        assert!(
            before.len() <= 1000 && before.ends_with("line 9999\n"),
            "{before}"
        );

        // Existing content counts.
        drop(log);
        let mut log = LogFile::bounded(&path, 1000).unwrap();
        log.add(&"y".repeat(995)).unwrap();
        assert_eq!(fs::read_to_string(rotated(&path, 1)).unwrap(), "the last\n");
    }
}
