//! What a node is started with: its programs, its environment, its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::modules::Modules;
use super::{NODE, RabbitMqPorts};
use crate::account::{Account, private_directory, private_file};
use crate::address::BrokerAddress;

/// RabbitMQ's own start script. Debian's `/usr/sbin/rabbitmq-server` is a wrapper that always starts the system's node.
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

pub(super) fn find(name: &str, known_paths: &[&str]) -> anyhow::Result<PathBuf> {
    let known = known_paths.iter().map(PathBuf::from).find(|path| path.exists());
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

/// The definitions of the virtual host and the users of this contract, as the container of compose makes them.
pub(crate) fn broker_definitions(contract: &BTreeMap<String, String>) -> anyhow::Result<String> {
    const SCRIPT: &str = include_str!("../../../../../migrations/broker_users.sh");
    let output = Command::new("bash")
        .args(["-c", SCRIPT])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(contract)
        .output()
        .context("could not run bash")?;
    ensure!(
        output.status.success(),
        "migrations/broker_users.sh failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("the definitions of the broker are not UTF-8")
}

pub(super) fn environment(folder: &Path, ports: &RabbitMqPorts, modules: &Modules) -> Vec<(String, String)> {
    let inside = |name: &str| folder.join(name).display().to_string();
    let first: String = modules
        .first
        .iter()
        .map(|path| format!(" -pa {}", path.display()))
        .collect();
    let plugins = modules
        .plugins
        .iter()
        .map(|path| ("RABBITMQ_PLUGINS_DIR", path.display().to_string()));
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
        // The script then replaces itself by the node, so that our signals reach the node.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
        // Two schedulers and no busy waiting, as a developer's machine has other work.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 2:2 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}".to_owned() + &first,
        ),
    ];
    pairs
        .into_iter()
        .chain(plugins)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(super) fn write_configuration(
    folder: &Path,
    ports: &RabbitMqPorts,
    address: &BrokerAddress,
    definitions: &str,
    settings: &[(String, String)],
    account: Option<&Account>,
) -> anyhow::Result<()> {
    for directory in [
        folder.to_owned(),
        folder.join("home"),
        folder.join("data"),
        folder.join("log"),
    ] {
        private_directory(&directory, account)?;
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
    let path = folder.join("definitions.json");
    private_file(&path, definitions, account)?;
    // Not in rabbitmq.conf, where `#` starts a comment, values are trimmed, and quoting is not possible. To Erlang a list of bytes is a
    // string, in which no character has a special meaning.
    let path = path.as_os_str().as_encoded_bytes();
    let load = format!("[{{rabbit, [{{load_definitions, {path:?}}}]}}].\n");
    private_file(&folder.join("advanced.config"), &load, account)?;
    private_file(&folder.join("rabbitmq-env.conf"), "", account)?;
    // Without its plugin, RabbitMQ refuses these settings; with it but without them, all nodes of this machine want one port.
    let with_metrics = settings.iter().any(|(name, _)| name.starts_with("prometheus."));
    let plugins = if with_metrics {
        "[rabbitmq_management, rabbitmq_prometheus].\n"
    } else {
        "[rabbitmq_management].\n"
    };
    private_file(&folder.join("enabled_plugins"), plugins, account)
}
