//! Child processes that end with this process, and their output.

mod clock;
mod log_file;
mod output;
mod summary;
mod vitals;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use procfs::ProcError;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

pub use clock::clock_faker_installed;
pub(crate) use clock::clock_variables;
pub(crate) use log_file::remove_rotated as remove_rotated_logs;
pub(crate) use output::Output;
use output::keep;
pub use vitals::Vitals;

use crate::account::Account;

const POLL_INTERVAL: Duration = Duration::from_millis(10);
const OUTPUT_READ_LIMIT: Duration = Duration::from_secs(1);

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
        let readers = [
            keep(child.stdout.take(), output),
            keep(child.stderr.take(), output),
        ];
        Ok(Process {
            program: self.clone(),
            pid: child.id(),
            child: Mutex::new(child),
            paused: AtomicBool::new(false),
            output: output.clone(),
            readers,
        })
    }

    /// Runs it to its end. It must succeed.
    pub(crate) async fn complete(&self, limit: Duration) -> anyhow::Result<()> {
        let output = Output::in_memory();
        let process = self.start(&output)?;
        let status = process.wait(limit).await?;
        if !status.success() {
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
    readers: [Option<JoinHandle<()>>; 2],
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
        threads.is_ok_and(|mut threads| {
            threads.all(|thread| match thread.and_then(|thread| thread.stat()) {
                Ok(stat) => stat.state == 'T',
                // A thread that has ended meanwhile has no state.
                Err(error) => matches!(error, ProcError::NotFound(_)),
            })
        })
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

    /// Waits for its end, and until its output is read.
    pub(crate) async fn wait(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.wait_until_read().await;
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

    /// Waits until its last lines are read, or until it is clear that a child of it still has the pipe.
    async fn wait_until_read(&self) {
        let started = Instant::now();
        let is_read = |reader: &JoinHandle<()>| reader.is_finished();
        while !self.readers.iter().flatten().all(is_read) && started.elapsed() < OUTPUT_READ_LIMIT {
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
