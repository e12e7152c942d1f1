//! A log file that does not grow for ever.
//!
//! Not by a crate: `tracing-appender` turns over by time alone and reopens nothing that was moved; the rest is the dozen lines below.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Of one file: as much as a container's log keeps in one, by docker-compose.yml.
const MAX_BYTES: u64 = 10_000_000;
/// Full files that are kept beside the one that is written: `name.1.log` is the newest.
const FULL_FILES: u32 = 2;

/// A file that lines are appended to. When it is full it is renamed, and another begun: `tail -F` follows.
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

    pub(super) fn add(&mut self, line: &str) -> io::Result<()> {
        let written = format!("{line}\n");
        let length = u64::try_from(written.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.max_bytes {
            self.begin_another()?;
        }
        self.file.write_all(written.as_bytes())?;
        self.bytes = self.bytes.saturating_add(length);
        Ok(())
    }

    fn begin_another(&mut self) -> io::Result<()> {
        for number in (1..FULL_FILES).rev() {
            // There may be none yet.
            let _ = fs::rename(full(&self.path, number), full(&self.path, number + 1));
        }
        fs::rename(&self.path, full(&self.path, 1))?;
        *self = Self::bounded(&self.path, self.max_bytes)?;
        Ok(())
    }
}

fn full(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("{number}.log"))
}

/// Forgets the full files of the run before.
pub(crate) fn remove_full(path: &Path) {
    for number in 1..=FULL_FILES {
        let _ = fs::remove_file(full(path, number));
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
        // One that is longer than a file is kept whole.
        log.add(&"x".repeat(3000)).unwrap();
        log.add("the last").unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["queue.1.log", "queue.2.log", "queue.log"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "the last\n");
        assert_eq!(fs::read_to_string(full(&path, 1)).unwrap().len(), 3001);
        let before = fs::read_to_string(full(&path, 2)).unwrap();
        assert!(
            before.len() <= 1000 && before.ends_with("line 9999\n"),
            "{before}"
        );

        // What is there already counts.
        drop(log);
        let mut log = LogFile::bounded(&path, 1000).unwrap();
        log.add(&"y".repeat(995)).unwrap();
        assert_eq!(fs::read_to_string(full(&path, 1)).unwrap(), "the last\n");
    }
}
