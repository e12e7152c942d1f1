//! What files hold, read again each time it is used, so that they can be rotated without a restart.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

/// A value that is made of the contents of some files. Files that cannot be used leave the last value: they may be in the middle of a
/// rotation. An event says so, once for each new reason.
#[derive(Debug)]
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    parse: fn(&[Vec<u8>]) -> anyhow::Result<Arc<T>>,
    last: Mutex<Last<T>>,
}

#[derive(Debug)]
struct Last<T> {
    contents: Vec<Vec<u8>>,
    value: Arc<T>,
    fault: Option<String>,
}

impl<T> Reloaded<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// One cannot be read, or those of `parse`.
    pub(super) fn read(
        files: Vec<PathBuf>,
        parse: fn(&[Vec<u8>]) -> anyhow::Result<Arc<T>>,
    ) -> anyhow::Result<Self> {
        let contents = read(&files)?;
        let last = Last {
            value: parse(&contents)?,
            contents,
            fault: None,
        };
        Ok(Self {
            files,
            parse,
            last: Mutex::new(last),
        })
    }

    /// The value of the files as they are now. The contents are compared, because a change of the same second and length may not show in the
    /// attributes of a file; reading two short files takes a fraction of a handshake.
    pub(super) fn current(&self) -> Arc<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match read(&self.files) {
            Ok(contents) if contents == last.contents => {
                last.fault = None;
                return Arc::clone(&last.value);
            }
            Ok(contents) => (self.parse)(&contents).map(|value| (contents, value)),
            Err(error) => Err(error),
        };
        match changed {
            Ok((contents, value)) => {
                *last = Last {
                    contents,
                    value,
                    fault: None,
                };
                tracing::info!(event = "tls_files_changed", files = ?self.files);
            }
            Err(error) => {
                let fault = format!("{error:#}");
                if last.fault.as_ref() != Some(&fault) {
                    tracing::warn!(event = "tls_files_not_used", files = ?self.files, error = fault);
                    last.fault = Some(fault);
                }
            }
        }
        Arc::clone(&last.value)
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = |file: &PathBuf| fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
    files.iter().map(read).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_counts_at_once_and_a_broken_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1").unwrap();
        let number = Reloaded::read(vec![file.path().to_owned()], |contents| {
            Ok(Arc::new(std::str::from_utf8(&contents[0])?.parse::<u32>()?))
        })
        .unwrap();
        assert_eq!(*number.current(), 1);
        fs::write(file.path(), "2").unwrap();
        assert_eq!(*number.current(), 2);
        fs::write(file.path(), "x").unwrap();
        assert_eq!(*number.current(), 2);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(*number.current(), 2);
        fs::write(file.path(), "3").unwrap();
        assert_eq!(*number.current(), 3);
    }
}
