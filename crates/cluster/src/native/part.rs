//! A part of a native cluster: a server with its data, or a service.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::timeout;

use super::leftovers::Leftovers;
use crate::process::locked;
use crate::replica::Replica;
use crate::servers::{Postgres, RabbitMq};

/// As that of a health check in docker-compose.yml.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What a part runs. Each start uses the same ports, data and environment.
#[derive(Debug)]
pub(crate) enum Program {
    Database(Box<Postgres>),
    Broker(Box<RabbitMq>),
    Service(Box<Replica>, BTreeMap<String, String>),
}

/// What a part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Its program was started, and has not answered yet. It has been away since this instant.
    Starting(Instant),
    /// Its program has answered.
    Healthy,
    /// Its program has ended and is to be started again. It has been away since this instant.
    Ended(Instant),
    /// Somebody has stopped it. It is not started before somebody asks for it.
    Stopped,
}

/// A program, and what it does. Only the task that supervises a part starts and ends its program.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    program: Program,
    state: Mutex<State>,
    client: reqwest::Client,
    leftovers: Arc<Leftovers>,
}

impl Part {
    /// A part that is not started yet. `name` is that of its service in docker-compose.yml.
    pub(crate) fn new(
        name: &'static str,
        program: Program,
        client: &reqwest::Client,
        leftovers: &Arc<Leftovers>,
    ) -> Self {
        Self {
            name,
            program,
            state: Mutex::new(State::Stopped),
            client: client.clone(),
            leftovers: Arc::clone(leftovers),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is one of the five services.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self.program, Program::Service(..))
    }

    /// Starts it, and waits until it is healthy.
    ///
    /// # Errors
    /// When it ends or is not healthy in time.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.launch(Instant::now()).await?;
        match &self.program {
            Program::Database(server) => {
                server.wait_until_it_answers().await?;
                server.create_database().await?;
            }
            Program::Broker(server) => server.wait_until_it_answers().await?,
            Program::Service(replica, _) => replica.wait_until_healthy(&self.client).await?,
        }
        self.set_state(State::Healthy);
        Ok(())
    }

    /// Starts its program. The part has been away since `away_since`.
    pub(crate) async fn launch(&self, away_since: Instant) -> anyhow::Result<()> {
        // What is left of the program before may take seconds to end. Other tasks go on meanwhile.
        block_in_place(|| self.end());
        match &self.program {
            Program::Database(server) => server.launch().await?,
            Program::Broker(server) => server.launch()?,
            Program::Service(replica, environment) => replica.start(environment.clone())?,
        }
        self.leftovers.record(self.name, &self.processes());
        self.set_state(State::Starting(away_since));
        Ok(())
    }

    /// Ends its program in order, and returns when it has ended.
    pub(crate) fn end(&self) {
        match &self.program {
            Program::Database(server) => server.stop(),
            Program::Broker(server) => server.stop(),
            Program::Service(replica, _) => {
                if let Ok(process) = replica.process() {
                    process.end_blocking();
                }
            }
        }
    }

    /// Kills its program, as a crash would.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        match &self.program {
            Program::Database(server) => server.kill(),
            Program::Broker(server) => server.kill(),
            Program::Service(replica, _) => replica.process()?.kill().map(drop),
        }
    }

    /// The processes of its program, the one that matters first.
    pub(crate) fn processes(&self) -> Vec<u32> {
        match &self.program {
            Program::Database(server) => server.pid().into_iter().collect(),
            Program::Broker(server) => server.pids(),
            Program::Service(replica, _) => replica.process().iter().map(|process| process.pid()).collect(),
        }
    }

    /// The exit status of its program, if it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        match &self.program {
            Program::Database(server) => server.ended(),
            Program::Broker(server) => server.ended(),
            Program::Service(replica, _) => replica.process().ok()?.ended(),
        }
    }

    /// The last lines of its program's output.
    pub(crate) fn tail(&self) -> String {
        match &self.program {
            Program::Database(server) => server.tail(),
            Program::Broker(server) => server.tail(),
            Program::Service(replica, _) => replica.tail(),
        }
    }

    /// Whether its program answers.
    pub(crate) async fn answers(&self) -> bool {
        let answer = async {
            match &self.program {
                Program::Database(server) => server.answers().await,
                Program::Broker(server) => server.answers(&self.client).await.unwrap_or(false),
                Program::Service(replica, _) => replica.is_healthy(&self.client).await.unwrap_or(false),
            }
        };
        timeout(ANSWER_LIMIT, answer).await.unwrap_or(false)
    }

    /// What it does.
    pub(crate) fn state(&self) -> State {
        *locked(&self.state)
    }

    pub(crate) fn set_state(&self, state: State) {
        *locked(&self.state) = state;
    }

    /// What a person sees of it now.
    pub(crate) async fn condition(&self) -> Condition {
        match self.state() {
            State::Stopped => Condition::Stopped,
            State::Ended(_) => Condition::Restarting,
            State::Starting(_) | State::Healthy if self.ended().is_some() => Condition::Restarting,
            State::Starting(_) => Condition::Starting,
            State::Healthy if self.answers().await => Condition::Healthy,
            State::Healthy => Condition::NotAnswering,
        }
    }
}

/// What a person sees of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Stopped,
    Restarting,
    Starting,
    Healthy,
    /// Its program runs, and does not answer.
    NotAnswering,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::NotAnswering => "not answering",
        })
    }
}
