//! One private RabbitMQ node with its management interface.

mod configuration;
mod modules;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;

pub(crate) use configuration::{broker_definitions, server_script};
use configuration::{environment, find, write_configuration};
use modules::Modules;

use super::setup::{Durability, START_LIMIT, Setup};
use crate::account::Account;
use crate::address::BrokerAddress;
use crate::http_client::http_client;
use crate::ports::Lease;
use crate::process::{Output, Process, Program, locked};
use crate::wait::wait_until;

/// A node has its own port mapper, so its name need not be unique on the machine. The data folder has this name.
const NODE: &str = "pydist@localhost";

const HELPERS_END_LIMIT: Duration = Duration::from_secs(5);
/// A node that was just started loses the signal to end, so it is repeated.
const SIGNAL_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The ports of a node.
#[derive(Debug)]
pub(crate) struct RabbitMqPorts {
    /// The port of the management interface.
    pub(crate) management: u16,
    amqp: Lease,
    distribution: Lease,
    port_mapper: Lease,
    _management_lease: Option<Lease>,
}

impl RabbitMqPorts {
    /// Free ports.
    pub(crate) fn free() -> anyhow::Result<Self> {
        let lease = Lease::take()?;
        let ports = Self::with_management(lease.port())?;
        Ok(Self {
            _management_lease: Some(lease),
            ..ports
        })
    }

    /// A given port for the management interface, free ports for the rest.
    pub(crate) fn with_management(port: u16) -> anyhow::Result<Self> {
        Ok(Self {
            management: port,
            amqp: Lease::take()?,
            distribution: Lease::take()?,
            port_mapper: Lease::take()?,
            _management_lease: None,
        })
    }
}

/// A node that can be stopped, killed and started again on the same ports.
#[derive(Debug)]
pub(crate) struct RabbitMq {
    address: BrokerAddress,
    port_mapper: Program,
    node: Program,
    output: Output,
    registry: PathBuf,
    // The node first: it is dropped, and so ended, before its port mapper.
    processes: Mutex<Option<(Process, Process)>>,
    _ports: RabbitMqPorts,
}

impl RabbitMq {
    /// Prepares a node and starts it.
    pub(crate) async fn start(
        folder: &Path,
        ports: RabbitMqPorts,
        contract: &BTreeMap<String, String>,
        setup: Setup<'_>,
        output: Output,
    ) -> anyhow::Result<Self> {
        let server = Self::prepare(folder, ports, contract, setup, output)?;
        server.start_again().await?;
        Ok(server)
    }

    /// A node that is not started yet, with its data in `folder`, and the users and the virtual host of `contract`.
    pub(crate) fn prepare(
        folder: &Path,
        ports: RabbitMqPorts,
        contract: &BTreeMap<String, String>,
        setup: Setup<'_>,
        output: Output,
    ) -> anyhow::Result<Self> {
        let account = Account::for_server("rabbitmq")?;
        let variable = |name: &str| contract.get(name).cloned();
        let address = BrokerAddress {
            host: "127.0.0.1".to_owned(),
            port: ports.amqp.port(),
            user: variable("Q_USER").context("Q_USER is missing")?,
            password: variable("Q_PWD").context("Q_PWD is missing")?,
            vhost: variable("Q_VHOST").unwrap_or_else(|| "/".to_owned()),
            management_url: format!("http://127.0.0.1:{}", ports.management),
        };
        let node_data = folder.join("data").join(NODE);
        let definitions = broker_definitions(contract)?;
        write_configuration(
            folder,
            &ports,
            &address,
            &definitions,
            setup.settings,
            account.as_ref(),
        )?;
        let script = server_script()?;
        let modules = Modules::link(&folder.join("plugins"), &script, account.as_ref())?;
        let environment = environment(folder, &ports, &modules);
        let mut port_mapper = Program::new(
            "epmd",
            find("epmd", &["/usr/bin/epmd", "/usr/lib/erlang/bin/epmd"])?,
        )
        .arguments([
            "-address",
            "127.0.0.1",
            "-port",
            &ports.port_mapper.port().to_string(),
        ]);
        let mut node = Program::new("RabbitMQ", script);
        for program in [&mut port_mapper, &mut node] {
            program.environment.clone_from(&environment);
            program.directory = Some(folder.to_owned());
            program.account.clone_from(&account);
        }
        // A clean shutdown takes about 6 s, which is wasted if the data is then deleted.
        node.end_with = if setup.durability == Durability::Full {
            Signal::TERM
        } else {
            Signal::KILL
        };
        node.grace = Duration::from_secs(40);
        port_mapper.end_with = Signal::KILL;
        Ok(Self {
            registry: node_data.join("quorum").join(NODE).join("names.dets"),
            address,
            port_mapper,
            node,
            output,
            processes: Mutex::new(None),
            _ports: ports,
        })
    }

    /// Its address.
    pub(crate) fn address(&self) -> &BrokerAddress {
        &self.address
    }

    /// Starts the processes on the same ports and data, and waits until the node answers.
    pub(crate) async fn start_again(&self) -> anyhow::Result<()> {
        self.launch()?;
        self.wait_until_it_answers().await
    }

    /// Starts the processes on the same ports and data.
    pub(crate) fn launch(&self) -> anyhow::Result<()> {
        self.stop();
        let port_mapper = self.port_mapper.start(&self.output)?;
        *locked(&self.processes) = Some((self.node.start(&self.output)?, port_mapper));
        Ok(())
    }

    /// Waits until the node answers.
    pub(crate) async fn wait_until_it_answers(&self) -> anyhow::Result<()> {
        let client = http_client()?;
        wait_until("RabbitMQ answers", START_LIMIT, async || {
            if self.with(Process::still_runs).is_err() {
                return Ok(true);
            }
            self.answers(&client).await
        })
        .await?;
        self.with(Process::still_runs)
    }

    /// Whether the node answers on both of its ports.
    pub(crate) async fn answers(&self, client: &reqwest::Client) -> anyhow::Result<bool> {
        let request = client.get(self.address.api("vhosts"));
        let answer = request
            .basic_auth(&self.address.user, Some(&self.address.password))
            .send()
            .await?;
        // The management interface listens a moment before the users are there, and before the AMQP listener.
        let listens = tokio::net::TcpStream::connect((&*self.address.host, self.address.port))
            .await
            .is_ok();
        Ok(answer.status().is_success() && listens)
    }

    /// Stops the node and its port mapper.
    pub(crate) fn stop(&self) {
        // The lock is released before the wait.
        let processes = locked(&self.processes).take();
        if let Some((node, port_mapper)) = processes {
            self.end(&node);
            port_mapper.end_blocking();
            self.wait_for_helpers();
        }
    }

    fn end(&self, node: &Process) {
        let since = Instant::now();
        while node.ended().is_none() && since.elapsed() < self.node.grace {
            let _ = node.signal(self.node.end_with);
            let signalled = Instant::now();
            while node.ended().is_none() && signalled.elapsed() < SIGNAL_AGAIN_AFTER {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = node.kill();
    }

    /// The node's helper programs end a moment after the node, when their pipe is closed.
    fn wait_for_helpers(&self) {
        let home = self.node.environment.iter().find(|(name, _)| name == "HOME");
        let Some((_, home)) = home else { return };
        let is_ours = |process: procfs::process::Process| {
            let environment = process.environ().unwrap_or_default();
            environment
                .get(OsStr::new("HOME"))
                .is_some_and(|value| **value == **home)
        };
        let processes = || procfs::process::all_processes().into_iter().flatten().flatten();
        let since = Instant::now();
        while since.elapsed() < HELPERS_END_LIMIT && processes().any(is_ours) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Shuts the node down cleanly, as an administrator would, even if the data is not kept.
    pub(crate) async fn shut_down(&self) -> anyhow::Result<()> {
        let Some((node, port_mapper)) = locked(&self.processes).take() else {
            return Ok(());
        };
        node.signal(Signal::TERM)?;
        node.wait(self.node.grace).await?;
        port_mapper.end_blocking();
        Ok(())
    }

    /// Runs `rabbitmqctl` on the node.
    pub(crate) async fn control(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.with(Process::still_runs)?;
        let mut program = self.node.clone();
        program.name = format!("rabbitmqctl {}", arguments.join(" "));
        program.path = self.node.path.with_file_name("rabbitmqctl");
        program.end_with = Signal::KILL;
        program.arguments(arguments).complete(START_LIMIT).await
    }

    /// Waits until the node has registered the quorum queues of a virtual host on disk.
    ///
    /// It does so seconds after it has confirmed their declaration (a delayed write of the registry, measured on 3.10). A
    /// node that is killed before never serves them again. Without this wait, a test that kills the node right after its
    /// queues were declared would find only that fault.
    pub(crate) async fn wait_until_queues_are_registered(&self, vhost: &BrokerAddress) -> anyhow::Result<()> {
        let request = http_client()?.get(vhost.api("queues/{vhost}"));
        let answer = request
            .basic_auth(&vhost.user, Some(&vhost.password))
            .send()
            .await?
            .error_for_status()?;
        let queues: Vec<serde_json::Value> = answer.json().await?;
        let quorum = queues.iter().filter(|queue| queue["type"] == "quorum");
        let names: Vec<String> = quorum
            .filter_map(|queue| Some(format!("{}_{}", vhost.vhost, queue["name"].as_str()?)))
            .collect();
        wait_until(
            "the node has registered its quorum queues",
            START_LIMIT,
            async || {
                let registry =
                    fs::read(&self.registry).context("the node has no registry of quorum queues")?;
                Ok(names.iter().all(|name| contains_atom(&registry, name)))
            },
        )
        .await
    }

    /// Kills the node.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.with(|node| node.kill().map(drop))
    }

    /// Sends a signal to the node.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.with(|node| node.signal(signal))
    }

    /// The exit status of the node, if it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        locked(&self.processes)
            .as_ref()
            .and_then(|(node, _)| node.ended())
    }

    /// The last lines of the node's output.
    pub(crate) fn tail(&self) -> String {
        self.output.tail()
    }

    /// The process ids of the node and its port mapper, if they were started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        locked(&self.processes)
            .iter()
            .flat_map(|(node, port_mapper)| [node.pid(), port_mapper.pid()])
            .collect()
    }

    fn with<T>(&self, action: impl FnOnce(&Process) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let processes = locked(&self.processes);
        action(&processes.as_ref().context("the RabbitMQ node was stopped")?.0)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether Erlang terms contain this atom. The length comes first, so that a longer name with the same beginning does not match.
fn contains_atom(terms: &[u8], name: &str) -> bool {
    let atom: Vec<u8> = u8::try_from(name.len()).into_iter().chain(name.bytes()).collect();
    terms.windows(atom.len()).any(|window| window == atom)
}
