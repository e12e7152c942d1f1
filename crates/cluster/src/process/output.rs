//! The output of child processes.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::locked;
use super::log_file::LogFile;
use super::summary::summary;

/// Lines kept in memory for a program whose output is also written to a file.
const MAX_LINES_BESIDE_FILE: usize = 200;
/// Lines kept in memory for a program in a test.
const MAX_LINES_IN_MEMORY: usize = 500_000;
/// Bytes kept of brief output: as many as a pipe holds, so that one read empties it.
const MAX_BRIEF_BYTES: usize = 65_536;

/// The output of a program, over all its runs.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// Line by line.
    Lines(Arc<Mutex<Lines>>),
    /// Only the end, as bytes.
    Brief(Arc<Mutex<Vec<u8>>>),
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    kept: VecDeque<String>,
    file: Option<LogFile>,
}

impl Output {
    /// Output that is kept only in memory.
    pub(crate) fn in_memory() -> Self {
        Self::Lines(Arc::default())
    }

    /// Output that is appended to a file of a bounded size. Only the last lines are kept in memory.
    pub(crate) fn to_file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::Lines(Arc::new(Mutex::new(Lines {
            kept: VecDeque::new(),
            file: Some(LogFile::open(path)?),
        }))))
    }

    /// Output that is read in large pieces, of which only the last are kept.
    pub(crate) fn brief() -> Self {
        Self::Brief(Arc::default())
    }

    /// All lines that are kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.last_lines(usize::MAX)
    }

    pub(super) fn last_lines(&self, max: usize) -> Vec<String> {
        match self {
            Self::Lines(lines) => {
                let lines = locked(lines);
                let from = lines.kept.len().saturating_sub(max);
                lines.kept.iter().skip(from).cloned().collect()
            }
            Self::Brief(end) => {
                let end = String::from_utf8_lossy(&locked(end)).into_owned();
                let lines: Vec<String> = end.lines().map(str::to_owned).collect();
                let from = lines.len().saturating_sub(max);
                lines.into_iter().skip(from).collect()
            }
        }
    }

    /// The last lines, indented for a message. Where a file has them all, they are few and short, and the file is named.
    pub(crate) fn tail(&self) -> String {
        let indented = |line: &str| format!("    {line}\n");
        let Some(file) = self.file() else {
            return self.last_lines(15).iter().map(|line| indented(line)).collect();
        };
        let last = self.last_lines(MAX_LINES_BESIDE_FILE);
        let readable: Vec<String> = last.iter().filter_map(|line| summary(line)).collect();
        let from = readable.len().saturating_sub(3);
        let shown: String = readable.iter().skip(from).map(|line| indented(line)).collect();
        shown + &indented(&format!("All of them: {}", file.display()))
    }

    fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Lines(lines) => locked(lines).file.as_ref().map(|file| file.path().to_owned()),
            Self::Brief(_) => None,
        }
    }
}

impl Lines {
    fn add(&mut self, line: String) {
        if let Some(file) = &mut self.file {
            // A full disk must not stop the cluster.
            let _ = file.add(&line);
        }
        let limit = if self.file.is_some() {
            MAX_LINES_BESIDE_FILE
        } else {
            MAX_LINES_IN_MEMORY
        };
        if self.kept.len() >= limit {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }
}

/// Reads a stream to its end, in a thread of its own.
pub(super) fn keep(stream: Option<impl Read + Send + 'static>, output: &Output) -> Option<JoinHandle<()>> {
    let stream = stream?;
    let output = output.clone();
    let reader = std::thread::spawn(move || match output {
        Output::Lines(lines) => {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                locked(&lines).add(String::from_utf8_lossy(&line).into_owned());
            }
        }
        Output::Brief(end) => keep_end(stream, &end),
    });
    Some(reader)
}

fn keep_end(mut stream: impl Read, end: &Mutex<Vec<u8>>) {
    let mut piece = vec![0; MAX_BRIEF_BYTES];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        let mut end = locked(end);
        end.extend(piece.iter().take(length));
        let excess = end.len().saturating_sub(MAX_BRIEF_BYTES);
        end.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_brief_output_is_kept() {
        let written: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let end = Arc::<Mutex<Vec<u8>>>::default();
        keep_end(written.as_bytes(), &end);
        assert_eq!(locked(&end).len(), MAX_BRIEF_BYTES);
        let last = Output::Brief(end).last_lines(2);
        assert_eq!(last, ["line 19998", "line 19999"]);
    }
}
