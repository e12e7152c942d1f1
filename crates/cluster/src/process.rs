//! Child processes that never outlive us, with their output kept.

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
use rustix::process::{Pid, Signal, kill_process};

pub use clock::clock_faker_installed;
pub(crate) use clock::clock_set_off;
use log_file::LogFile;
pub(crate) use log_file::remove_full as remove_full_logs;
pub use vitals::Vitals;

use crate::account::Account;

const PAUSE: Duration = Duration::from_millis(10);
/// Of a program whose lines are in a file as well.
const KEPT_BESIDE_FILE: usize = 200;
/// Of a program in a test.
const KEPT_IN_MEMORY: usize = 500_000;
/// Bytes of a program whose output is brief: as much as a pipe holds, so that one read empties it.
const KEPT_OF_BRIEF: usize = 65_536;

/// What to run, as whom, and how to end it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// The name in messages.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) account: Option<Account>,
    /// Asks it to end; also sent by the kernel when this process dies.
    pub(crate) end_with: Signal,
    /// How long it may take to end before it is killed.
    pub(crate) grace: Duration,
}

impl Program {
    /// A program without arguments or environment that is ended by SIGTERM within 10 s.
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

    /// Runs it to its end, which must be a success.
    pub(crate) async fn complete(&self, limit: Duration) -> anyhow::Result<()> {
        let output = Output::in_memory();
        let process = self.start(&output)?;
        let status = process.wait(limit).await?;
        // Its last lines may still be on their way through the reader thread.
        if !status.success() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            bail!("{} failed ({status}):\n{}", self.name, output.tail());
        }
        Ok(())
    }

    fn command(&self) -> Command {
        // std offers the parent-death signal only through unsafe code; setpriv is part of util-linux, so of every Debian.
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
            // Ctrl-C in a terminal goes to the foreground group: only we are to get it, and stop the others in order.
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

/// A running child; killed when dropped.
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

    /// Its exit status, when it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        locked(&self.child).try_wait().ok().flatten()
    }

    /// Fails with its last lines of output when it has ended.
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

    /// Stops it for a moment, or lets it go on, unless it stands still by [`Process::signal`]; waits for nothing.
    pub(crate) fn hold(&self, held: bool) -> anyhow::Result<()> {
        let signal = if held { Signal::STOP } else { Signal::CONT };
        self.while_it_runs(|pid| {
            if self.paused.load(Ordering::SeqCst) {
                return Ok(());
            }
            kill_process(pid, signal)
        })
    }

    /// Does something to it, unless it has ended.
    fn while_it_runs(&self, action: impl FnOnce(Pid) -> rustix::io::Result<()>) -> anyhow::Result<()> {
        let mut child = locked(&self.child);
        // Under the lock and before it is reaped: the process id cannot have gone to a stranger.
        if child.try_wait()?.is_none() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
            action(pid.context("not a process id")?)?;
        }
        Ok(())
    }

    /// SIGSTOP reaches one thread after the other: on return all stand still.
    fn wait_until_frozen(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.ended().is_none() && !self.stands_still() {
            if started.elapsed() > self.program.grace {
                bail!(
                    "{} was not frozen within {:?}",
                    self.program.name,
                    self.program.grace
                );
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid))
            .into_iter()
            .flatten()
            .flatten();
        let mut states =
            threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        // The state follows the name, which is in parentheses and may hold anything.
        states.all(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        })
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
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks it to end and waits for that.
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

    /// Asks it to end, waits, and kills it when its grace is over. For places that cannot await.
    pub(crate) fn end_now(&self) {
        let _ = self.signal(self.program.end_with);
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < self.program.grace {
            std::thread::sleep(PAUSE);
        }
        let _ = self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What a program wrote, over all its runs.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// Line by line.
    Lines(Arc<Mutex<Lines>>),
    /// The end of it, as it came.
    Brief(Arc<Mutex<Vec<u8>>>),
}

#[derive(Debug, Default)]
pub(crate) struct Lines {
    kept: VecDeque<String>,
    file: Option<LogFile>,
}

impl Output {
    /// Kept in memory only.
    pub(crate) fn in_memory() -> Self {
        Self::Lines(Arc::default())
    }

    /// Appended to a file of a bounded size; only the last ones are kept in memory.
    pub(crate) fn to_file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::Lines(Arc::new(Mutex::new(Lines {
            kept: VecDeque::new(),
            file: Some(LogFile::open(path)?),
        }))))
    }

    /// Read in large pieces, of which only the last are kept.
    pub(crate) fn brief() -> Self {
        Self::Brief(Arc::default())
    }

    /// All lines so far, as far as they are kept.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.last_lines(usize::MAX)
    }

    fn last_lines(&self, most: usize) -> Vec<String> {
        match self {
            Self::Lines(lines) => {
                let lines = locked(lines);
                let from = lines.kept.len().saturating_sub(most);
                lines.kept.iter().skip(from).cloned().collect()
            }
            Self::Brief(end) => {
                let end = String::from_utf8_lossy(&locked(end)).into_owned();
                let lines: Vec<String> = end.lines().map(str::to_owned).collect();
                let from = lines.len().saturating_sub(most);
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
            // A full disk must not take the cluster down.
            let _ = file.add(&line);
        }
        let limit = if self.file.is_some() {
            KEPT_BESIDE_FILE
        } else {
            KEPT_IN_MEMORY
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
    let mut piece = vec![0; KEPT_OF_BRIEF];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        let mut end = locked(end);
        end.extend(piece.iter().take(length));
        let excess = end.len().saturating_sub(KEPT_OF_BRIEF);
        end.drain(..excess);
    }
}

/// The parent-death signal fires when the *thread* that started a child ends, and tests run on threads that come and go:
/// all children are started by one thread that lives as long as the process.
static SPAWNER: LazyLock<mpsc::Sender<(Command, mpsc::Sender<std::io::Result<Child>>)>> =
    LazyLock::new(|| {
        let (orders, inbox) = mpsc::channel::<(Command, mpsc::Sender<std::io::Result<Child>>)>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
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

/// A poisoned lock only means that another test panicked: what it guards is still right.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_brief_output_the_end_is_kept() {
        let written: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
        let end = Arc::<Mutex<Vec<u8>>>::default();
        keep_end(written.as_bytes(), &end);
        assert_eq!(locked(&end).len(), KEPT_OF_BRIEF);
        let last = Output::Brief(end).last_lines(2);
        assert_eq!(last, ["line 19998", "line 19999"]);
    }
}
