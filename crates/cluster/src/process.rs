//! Child processes that end with this process, and their output.

mod clock;
mod log_file;
mod vitals;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

pub use clock::clock_faker_installed;
pub(crate) use clock::clock_variables;
use log_file::LogFile;
pub(crate) use log_file::remove_rotated as remove_rotated_logs;
pub use vitals::Vitals;

use crate::account::Account;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Lines kept in memory for a program whose output is also written to a file.
const MAX_LINES_BESIDE_FILE: usize = 200;
/// Lines kept in memory for a program in a test.
const MAX_LINES_IN_MEMORY: usize = 500_000;
/// Bytes kept of brief output: as many as a pipe holds, so that one read empties it.
const MAX_BRIEF_BYTES: usize = 65_536;

/// What to run, as whom, and how to end it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The name in messages.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The complete environment: nothing is inherited.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) account: Option<Account>,
    /// The signal that asks it to end. The kernel also sends it when this process dies.
    pub(crate) end_with: Signal,
    /// How long it may take to end before it is killed.
    pub(crate) grace: Duration,
}

impl Program {
    /// A program without arguments and environment, which ends within 10 s after SIGTERM.
    pub(crate) fn new(name: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            account: None,
            end_with: Signal::TERM,
            grace: Duration::from_secs(10),
        }
    }

    /// Appends arguments.
    pub(crate) fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it.
    pub(crate) fn start(&self, output: &Output) -> anyhow::Result<Process> {
        let mut child = spawn(self.command()).with_context(|| format!("could not start {}", self.name))?;
        keep(child.stdout.take(), output);
        keep(child.stderr.take(), output);
        Ok(Process {
            program: self.clone(),
            pid: child.id(),
            child: Mutex::new(child),
            paused: AtomicBool::new(false),
            output: output.clone(),
        })
    }

    /// Runs it to its end. It must succeed.
    pub(crate) async fn complete(&self, limit: Duration) -> anyhow::Result<()> {
        let output = Output::in_memory();
        let process = self.start(&output)?;
        let status = process.wait(limit).await?;
        // The reader thread may not have read its last lines yet.
        if !status.success() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bail!("{} failed ({status}):\n{}", self.name, output.tail());
        }
        Ok(())
    }

    fn command(&self) -> Command {
        // std offers the parent-death signal only through unsafe code. setpriv is part of util-linux, so of every Debian.
        let mut command = Command::new("setpriv");
        if let Some(account) = &self.account {
            command
                .arg(format!("--reuid={}", account.uid))
                .arg(format!("--regid={}", account.gid))
                .arg("--clear-groups");
        }
        command
            .arg("--pdeathsig")
            .arg(signal_name(self.end_with))
            .arg("--")
            .arg(&self.path)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal signals the foreground process group: only this process should get it, and stop the others in order.
            .process_group(0);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "INT",
        Signal::QUIT => "QUIT",
        Signal::KILL => "KILL",
        _ => "TERM",
    }
}

/// A running child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    pid: u32,
    child: Mutex<Child>,
    paused: AtomicBool,
    output: Output,
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        locked(&self.child).try_wait().ok().flatten()
    }

    /// Fails if it has ended, with the last lines of its output.
    pub(crate) fn still_runs(&self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); its last lines:\n{}",
                self.program.name,
                self.output.tail()
            ),
        }
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.while_it_runs(|pid| {
            if matches!(signal, Signal::STOP | Signal::CONT) {
                self.paused.store(signal == Signal::STOP, Ordering::SeqCst);
            }
            kill_process(pid, signal)
        })
        .with_context(|| format!("could not signal {}", self.program.name))?;
        if signal == Signal::STOP {
            self.wait_until_frozen()
        } else {
            Ok(())
        }
    }

    /// Stops or continues it at once, unless it was frozen by [`Process::signal`].
    pub(crate) fn hold(&self, held: bool) -> anyhow::Result<()> {
        let signal = if held { Signal::STOP } else { Signal::CONT };
        self.while_it_runs(|pid| {
            if self.paused.load(Ordering::SeqCst) {
                return Ok(());
            }
            kill_process(pid, signal)
        })
    }

    /// Runs an action on it, unless it has ended.
    fn while_it_runs(&self, action: impl FnOnce(Pid) -> rustix::io::Result<()>) -> anyhow::Result<()> {
        let mut child = locked(&self.child);
        // Under the lock it cannot be reaped, so its process id cannot belong to another process.
        if child.try_wait()?.is_none() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            action(pid.context("not a process id")?)?;
        }
        Ok(())
    }

    /// SIGSTOP stops one thread after the other. Waits until all are stopped.
    fn wait_until_frozen(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.ended().is_none() && !self.all_threads_are_stopped() {
            if started.elapsed() > self.program.grace {
                bail!(
                    "{} was not frozen within {:?}",
                    self.program.name,
                    self.program.grace
                );
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn all_threads_are_stopped(&self) -> bool {
        let threads = self.procfs().and_then(|process| Ok(process.tasks()?));
        // A thread that has ended meanwhile has no state.
        let mut states = threads
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|thread| thread.stat());
        states.all(|stat| stat.state == 'T')
    }

    /// The resources that it uses now.
    pub(crate) fn vitals(&self) -> anyhow::Result<Vitals> {
        self.still_runs()?;
        Vitals::of(&self.procfs()?)
    }

    /// Limits how many files it may have open. The hard limit does not change: raising it again needs root.
    pub(crate) fn limit_open_files(&self, max: u64) -> anyhow::Result<()> {
        self.still_runs()?;
        let limit = Rlimit {
            current: Some(max),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        self.while_it_runs(|pid| prlimit(Some(pid), Resource::Nofile, limit).map(drop))
            .with_context(|| format!("could not limit the open files of {}", self.program.name))
    }

    fn procfs(&self) -> anyhow::Result<procfs::process::Process> {
        Ok(procfs::process::Process::new(i32::try_from(self.pid)?)?)
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!(
                    "{} did not end within {limit:?}; its last lines:\n{}",
                    self.program.name,
                    self.output.tail()
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Asks it to end and waits until it has ended.
    pub(crate) async fn stop(&self) -> anyhow::Result<ExitStatus> {
        self.signal(self.program.end_with)?;
        self.wait(self.program.grace).await
    }

    /// Kills it and reaps it.
    pub(crate) fn kill(&self) -> anyhow::Result<ExitStatus> {
        let mut child = locked(&self.child);
        child.kill()?;
        child
            .wait()
            .with_context(|| format!("could not wait for {}", self.program.name))
    }

    /// Asks it to end, waits without async, and kills it after its grace time.
    pub(crate) fn end_blocking(&self) {
        let _ = self.signal(self.program.end_with);
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < self.program.grace {
            std::thread::sleep(POLL_INTERVAL);
        }
        let _ = self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

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

    fn last_lines(&self, max: usize) -> Vec<String> {
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

    /// The last lines, indented for a message.
    pub(crate) fn tail(&self) -> String {
        let lines = self.last_lines(15);
        lines.iter().map(|line| format!("    {line}\n")).collect()
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

fn keep(stream: Option<impl Read + Send + 'static>, output: &Output) {
    let Some(stream) = stream else { return };
    let output = output.clone();
    std::thread::spawn(move || match output {
        Output::Lines(lines) => {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                locked(&lines).add(String::from_utf8_lossy(&line).into_owned());
            }
        }
        Output::Brief(end) => keep_end(stream, &end),
    });
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

/// The parent-death signal is sent when the *thread* that started a child ends, and the threads of tests end early. So one thread that lives as
/// long as the process starts all children.
static SPAWNER: LazyLock<mpsc::Sender<(Command, mpsc::Sender<std::io::Result<Child>>)>> =
    LazyLock::new(|| {
        let (commands, inbox) = mpsc::channel::<(Command, mpsc::Sender<std::io::Result<Child>>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        commands
    });

fn spawn(command: Command) -> anyhow::Result<Child> {
    let (answer, child) = mpsc::channel();
    SPAWNER
        .send((command, answer))
        .ok()
        .context("the thread that starts processes has ended")?;
    child
        .recv()?
        .context("could not run setpriv (of the package util-linux)")
}

/// Locks a mutex. A poisoned lock only means that another test panicked: the data is still valid.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
