//! One private RabbitMQ node with its management interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::StatusCode;
use rustix::process::Signal;

use super::{BrokerAddress, Durability, START_LIMIT, Setup};
use crate::account::{Account, private_directory, private_file};
use crate::http_client::http_client;
use crate::ports::Lease;
use crate::process::{Output, Process, Program, locked};
use crate::wait::wait_until;

/// A node has a port mapper of its own, so its name need not be unique on the machine. The data folder bears the name.
const NODE: &str = "pydist@localhost";

const HELPERS_END_WITHIN: Duration = Duration::from_secs(5);
/// A node loses the signal to end when it has only just been started.
const SIGNAL_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The ports of a node.
#[derive(Debug)]
pub(crate) struct RabbitMqPorts {
    /// Of the management interface.
    pub(crate) management: u16,
    amqp: Lease,
    distribution: Lease,
    port_mapper: Lease,
    _management_lease: Option<Lease>,
}

impl RabbitMqPorts {
    /// Free ones.
    pub(crate) fn free() -> anyhow::Result<Self> {
        let lease = Lease::take()?;
        let ports = Self::with_management(lease.port())?;
        Ok(Self {
            _management_lease: Some(lease),
            ..ports
        })
    }

    /// The management interface on a given port, free ones for the rest.
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
    folder: PathBuf,
    /// Whether the data was made by this process.
    made_now: bool,
    // The node first: dropped, and so ended, before its port mapper.
    processes: Mutex<Option<(Process, Process)>>,
    _ports: RabbitMqPorts,
}

impl RabbitMq {
    /// Starts a node whose data is in `folder`.
    pub(crate) async fn start(
        folder: &Path,
        ports: RabbitMqPorts,
        (user, password): (&str, &str),
        setup: Setup<'_>,
        output: Output,
    ) -> anyhow::Result<Self> {
        let account = Account::for_server("rabbitmq")?;
        let address = BrokerAddress {
            host: "127.0.0.1".to_owned(),
            port: ports.amqp.port(),
            user: user.to_owned(),
            password: password.to_owned(),
            vhost: "/".to_owned(),
            management_url: format!("http://127.0.0.1:{}", ports.management),
        };
        let node_data = folder.join("data").join(NODE);
        let made_now = !node_data.exists();
        write_configuration(folder, &ports, &address, setup.settings, account.as_ref())?;
        let environment = environment(folder, &ports);
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
        let mut node = Program::new("RabbitMQ", server_script()?);
        for program in [&mut port_mapper, &mut node] {
            program.environment.clone_from(&environment);
            program.directory = Some(folder.to_owned());
            program.account.clone_from(&account);
        }
        // A clean stop of a node takes some 6 s, which is wasted on data that is deleted next.
        node.end_with = if setup.durability == Durability::Full {
            Signal::TERM
        } else {
            Signal::KILL
        };
        node.grace = Duration::from_secs(40);
        port_mapper.end_with = Signal::KILL;
        let server = Self {
            registry: node_data.join("quorum").join(NODE).join("names.dets"),
            folder: folder.to_owned(),
            made_now,
            address,
            port_mapper,
            node,
            output,
            processes: Mutex::new(None),
            _ports: ports,
        };
        server.start_again().await?;
        Ok(server)
    }

    /// Where it is; the virtual host is the default one.
    pub(crate) fn address(&self) -> &BrokerAddress {
        &self.address
    }

    /// Starts the processes, on the same ports and data, and waits until the node answers.
    pub(crate) async fn start_again(&self) -> anyhow::Result<()> {
        self.stop();
        let port_mapper = self.port_mapper.start(&self.output)?;
        *locked(&self.processes) = Some((self.node.start(&self.output)?, port_mapper));
        self.answers().await
    }

    /// Waits until the node answers.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        let client = http_client()?;
        let mut refused = false;
        wait_until("RabbitMQ answers", START_LIMIT, async || {
            if self.with(Process::still_runs).is_err() {
                return Ok(true);
            }
            let request = client.get(self.address.api("vhosts"));
            let answer = request
                .basic_auth(&self.address.user, Some(&self.address.password))
                .send()
                .await?;
            // Final, as the end of the process is: no "not yet".
            refused = answer.status() == StatusCode::UNAUTHORIZED;
            if refused {
                return Ok(true);
            }
            // Management is up a moment before the AMQP listener.
            let listens = tokio::net::TcpStream::connect((&*self.address.host, self.address.port))
                .await
                .is_ok();
            Ok(answer.status().is_success() && listens)
        })
        .await?;
        if refused {
            bail!("{}", self.refusal());
        }
        self.with(Process::still_runs)
    }

    /// Why a node that answers refuses us, and what to do.
    fn refusal(&self) -> String {
        let (user, place) = (&self.address.user, self.folder.display());
        if self.made_now {
            return format!(
                "RabbitMQ refuses user {user} with the password that its new data in {place} was made with: please report this"
            );
        }
        format!(
            "RabbitMQ refuses user {user}. Its data in {place} keeps user and password of its first start: set them in .env to what they were \
             then. Or delete that folder alone, start, and bring back with scripts/republish.sh what was in the queue. (--fresh would delete \
             all orders, too.)"
        )
    }

    /// Stops the node and its port mapper.
    pub(crate) fn stop(&self) {
        if let Some((node, port_mapper)) = locked(&self.processes).take() {
            self.end(&node);
            port_mapper.end_now();
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

    /// The node's helper programs end by themselves, when their pipe does: a moment later than the node.
    fn wait_for_helpers(&self) {
        let home = self.node.environment.iter().find(|(name, _)| name == "HOME");
        let Some(mark) = home.map(|(name, value)| format!("{name}={value}\0").into_bytes()) else {
            return;
        };
        let ours = |process: fs::DirEntry| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        };
        let since = Instant::now();
        while since.elapsed() < HELPERS_END_WITHIN
            && fs::read_dir("/proc").into_iter().flatten().flatten().any(ours)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the node in order, as an administrator would, even where the data is not kept.
    pub(crate) async fn shut_down(&self) -> anyhow::Result<()> {
        let Some((node, port_mapper)) = locked(&self.processes).take() else {
            return Ok(());
        };
        node.signal(Signal::TERM)?;
        node.wait(self.node.grace).await?;
        port_mapper.end_now();
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

    /// Waits until the node has written down which quorum queues of a virtual host it serves.
    ///
    /// It does so seconds after it has confirmed their declaration (a delayed write of the registry, measured on 3.10), and
    /// a node killed before that never serves them again. A test that kills the node right after its queues were declared
    /// would find that fault, and no other.
    pub(crate) async fn settled(&self, vhost: &BrokerAddress) -> anyhow::Result<()> {
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
                Ok(names.iter().all(|name| holds_atom(&registry, name)))
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

    /// Fails with its last lines of output when it has ended.
    pub(crate) fn still_runs(&self) -> anyhow::Result<()> {
        self.with(Process::still_runs)
    }

    /// The process ids of the node and its port mapper, when they were started.
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

/// Whether Erlang terms hold this atom: after its length, so that a longer name with the same beginning is another one.
fn holds_atom(terms: &[u8], name: &str) -> bool {
    let atom: Vec<u8> = u8::try_from(name.len()).into_iter().chain(name.bytes()).collect();
    terms.windows(atom.len()).any(|window| window == atom)
}

/// RabbitMQ's own start script. Debian's `/usr/sbin/rabbitmq-server` is a wrapper that insists on the system's node.
pub(crate) fn server_script() -> anyhow::Result<PathBuf> {
    find(
        "rabbitmq-server",
        &[
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            "/opt/rabbitmq/sbin/rabbitmq-server",
        ],
    )
    .context("RabbitMQ is not installed: install the package `rabbitmq-server`")
}

fn find(name: &str, places: &[&str]) -> anyhow::Result<PathBuf> {
    let known = places.iter().map(PathBuf::from).find(|path| path.exists());
    let searched = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|path| path.exists())
    };
    known
        .or_else(searched)
        .with_context(|| format!("`{name}` was not found"))
}

/// A text as an Erlang term, byte by byte, so that no character of it can mean anything else.
fn erlang_binary(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    format!("<<{}>>", bytes.join(","))
}

fn environment(folder: &Path, ports: &RabbitMqPorts) -> Vec<(String, String)> {
    let inside = |name: &str| folder.join(name).display().to_string();
    let pairs = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", inside("home")),
        ("RABBITMQ_NODENAME", NODE.to_owned()),
        ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", inside("data")),
        ("RABBITMQ_LOG_BASE", inside("log")),
        ("RABBITMQ_DIST_PORT", ports.distribution.port().to_string()),
        ("ERL_EPMD_PORT", ports.port_mapper.port().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
        // The script then replaces itself by the node instead of waiting for it, so that our signals reach the node.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        // Two schedulers and no busy waiting: a developer's machine has other work.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

fn write_configuration(
    folder: &Path,
    ports: &RabbitMqPorts,
    address: &BrokerAddress,
    settings: &[(String, String)],
    account: Option<&Account>,
) -> anyhow::Result<()> {
    for place in [
        folder.to_owned(),
        folder.join("home"),
        folder.join("data"),
        folder.join("log"),
    ] {
        private_directory(&place, account)?;
    }
    let cookie = folder.join("home/.erlang.cookie");
    if fs::read_to_string(&cookie).map_or(true, |text| text.is_empty()) {
        private_file(&cookie, &uuid::Uuid::new_v4().simple().to_string(), account)?;
    }
    let mut configuration = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {}\n\
         disk_free_limit.absolute = 50MB\n\
         log.file.level = warning\n\
         log.file.rotation.size = 10485760\n\
         log.file.rotation.count = 2\n",
        address.port, ports.management,
    );
    configuration.extend(settings.iter().map(|(name, value)| format!("{name} = {value}\n")));
    private_file(&folder.join("rabbitmq.conf"), &configuration, account)?;
    // Not in rabbitmq.conf, where `#` begins a comment, blanks at the ends are lost, and nothing can be quoted.
    let credentials = format!(
        "[{{rabbit, [{{default_user, {}}}, {{default_pass, {}}}]}}].\n",
        erlang_binary(&address.user),
        erlang_binary(&address.password)
    );
    private_file(&folder.join("advanced.config"), &credentials, account)?;
    private_file(&folder.join("rabbitmq-env.conf"), "", account)?;
    private_file(
        &folder.join("enabled_plugins"),
        "[rabbitmq_management].\n",
        account,
    )
}
