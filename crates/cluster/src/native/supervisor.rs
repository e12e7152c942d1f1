//! Keeps the parts of a running cluster running, as `restart: unless-stopped` does in compose: one task for each part.

use std::convert::Infallible;
use std::future::pending;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use common::retry::pauses;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, block_in_place};

use super::part::{Condition, Part, State};

/// The pause before the first restart. The next ones double up to some seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A part that has run for as long begins with the first pause again when it ends.
const STEADY: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a caller waits for a part to become healthy. As a server may take at its first start.
const HEALTHY_LIMIT: Duration = Duration::from_secs(120);

/// What a person can ask of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// End in order, and stay stopped.
    Stop,
    /// Start, unless it runs.
    Start,
    /// End in order, and start.
    Restart,
    /// End as in a crash. It is then restarted as after one.
    Kill,
}

struct Command {
    action: Action,
    done: oneshot::Sender<anyhow::Result<()>>,
}

/// The tasks that supervise the parts. Dropping it ends them, and leaves the parts as they are.
pub(crate) struct Supervisor {
    tasks: JoinSet<()>,
    parts: Vec<Supervised>,
}

/// A part that is supervised.
#[derive(Clone)]
pub(crate) struct Supervised {
    part: Arc<Part>,
    commands: mpsc::Sender<Command>,
}

impl Supervisor {
    /// Begins to supervise parts that are healthy.
    pub(crate) fn start(parts: &[Arc<Part>]) -> Self {
        let mut tasks = JoinSet::new();
        let spawn = |part: &Arc<Part>| {
            let (commands, inbox) = mpsc::channel(1);
            tasks.spawn(supervise(Arc::clone(part), inbox));
            Supervised {
                part: Arc::clone(part),
                commands,
            }
        };
        let parts = parts.iter().map(spawn).collect();
        Self { tasks, parts }
    }

    /// The parts.
    pub(crate) fn parts(&self) -> Vec<Supervised> {
        self.parts.clone()
    }

    /// From its return on, nothing is restarted.
    pub(crate) async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Supervised {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.part.name()
    }

    /// A line with its name, its condition and its process.
    pub(crate) async fn line(&self) -> String {
        let condition = self.part.condition().await;
        let process = match (condition, self.part.processes().first()) {
            (Condition::Stopped | Condition::Restarting, _) | (_, None) => String::new(),
            (_, Some(process)) => format!("process {process}"),
        };
        format!("{:<17} {condition:<14} {process}", self.name())
            .trim_end()
            .to_owned()
    }

    /// Does what was asked, and says in a line what was done. A start is done when the part is healthy.
    pub(crate) async fn act(&self, action: Action) -> anyhow::Result<String> {
        let name = self.name();
        let since = Instant::now();
        let (done, outcome) = oneshot::channel();
        let stopping = "the cluster is being stopped";
        self.commands
            .send(Command { action, done })
            .await
            .ok()
            .context(stopping)?;
        outcome.await.ok().context(stopping)??;
        match action {
            Action::Stop => Ok(format!("{name} is stopped")),
            Action::Kill => Ok(format!("{name} was killed; it is restarted as after a crash")),
            Action::Start | Action::Restart => {
                self.wait_until_healthy().await?;
                Ok(format!(
                    "{name} is healthy after {:.1} s",
                    since.elapsed().as_secs_f32()
                ))
            }
        }
    }

    async fn wait_until_healthy(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            match self.part.condition().await {
                Condition::Healthy => return Ok(()),
                Condition::Stopped => bail!("{} was stopped meanwhile", self.name()),
                condition if since.elapsed() >= HEALTHY_LIMIT => bail!(
                    "{} is not healthy within {HEALTHY_LIMIT:?}, but {condition}: .cluster/logs/{}.log may say why",
                    self.name(),
                    self.name()
                ),
                _ => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }
}

/// Keeps a part running and does what is asked of it, one thing at a time.
async fn supervise(part: Arc<Part>, mut inbox: mpsc::Receiver<Command>) {
    loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            never = keep_running(&part) => match never {},
        };
        let Some(Command { action, done }) = command else {
            return;
        };
        // Who asked may have gone meanwhile.
        let _ = done.send(carry_out(&part, action).await);
    }
}

async fn carry_out(part: &Part, action: Action) -> anyhow::Result<()> {
    let name = part.name();
    match action {
        Action::Stop => {
            say!("{name} is stopped, as asked");
            part.set_state(State::Stopped);
            block_in_place(|| part.end());
            Ok(())
        }
        Action::Start => match part.state() {
            State::Starting(_) | State::Healthy => Ok(()),
            State::Stopped | State::Ended(_) => start(part).await,
        },
        Action::Restart => {
            say!("{name} is restarted, as asked");
            start(part).await
        }
        Action::Kill => {
            let runs = matches!(part.state(), State::Starting(_) | State::Healthy);
            if !runs || part.ended().is_some() {
                bail!("{name} does not run: it is {}", part.condition().await);
            }
            part.kill()
        }
    }
}

async fn start(part: &Part) -> anyhow::Result<()> {
    let now = Instant::now();
    // If it cannot be started, it is tried again and again from here on.
    part.set_state(State::Ended(now));
    part.launch(now).await
}

/// Starts the program again whenever it has ended, after a pause that grows while it does not run for long. Does nothing while the part is stopped.
async fn keep_running(part: &Part) -> Infallible {
    let mut failures = Failures::new(part.name());
    let mut launched = Instant::now();
    loop {
        let away_since = match part.state() {
            State::Stopped => return pending().await,
            State::Ended(since) => since,
            State::Starting(_) | State::Healthy => {
                let status = ended(part).await;
                if launched.elapsed() >= STEADY {
                    failures = Failures::new(part.name());
                }
                failures.add(&format!("ended ({status})"), || part.tail());
                // While it does not become healthy, it has been away since its first end.
                let since = match part.state() {
                    State::Starting(since) => since,
                    _ => Instant::now(),
                };
                part.set_state(State::Ended(since));
                since
            }
        };
        tokio::time::sleep(failures.next_pause).await;
        launched = Instant::now();
        if let Err(error) = part.launch(away_since).await {
            failures.add(&format!("could not be started: {error:#}"), String::new);
        }
    }
}

/// Waits for the end of the program, and tells when it has become healthy.
async fn ended(part: &Part) -> ExitStatus {
    loop {
        if let Some(status) = part.ended() {
            return status;
        }
        if let State::Starting(since) = part.state()
            && part.answers().await
        {
            part.set_state(State::Healthy);
            say!(
                "{} is healthy again after {:.1} s",
                part.name(),
                since.elapsed().as_secs_f32()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Failures of one part in a row.
struct Failures {
    part: &'static str,
    count: usize,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
    next_pause: Duration,
}

impl Failures {
    fn new(part: &'static str) -> Self {
        Self {
            part,
            count: 0,
            pauses: Box::new(pauses(FIRST_PAUSE)),
            next_pause: Duration::ZERO,
        }
    }

    /// Tells of a failure in one line. After the first one, the last lines of the output follow.
    fn add(&mut self, what: &str, last_lines: impl FnOnce() -> String) {
        self.count += 1;
        self.next_pause = self.pauses.next().unwrap_or(FIRST_PAUSE);
        let pause = self.next_pause.as_secs_f32();
        let part = self.part;
        if self.count > 1 {
            say!(
                "{part} {what} again; it is restarted in {pause:.1} s (attempt {})",
                self.count
            );
            return;
        }
        let last_lines = last_lines();
        if last_lines.is_empty() {
            say!("{part} {what}; it is restarted");
        } else {
            say!(
                "{part} {what}; it is restarted. Its last lines:\n{}",
                last_lines.trim_end()
            );
        }
    }
}
