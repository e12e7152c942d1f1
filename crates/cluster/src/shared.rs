//! One set of servers for all tests of a process or of a whole test run.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::Context as _;
use tokio::sync::OnceCell;

use crate::address::Addresses;
use crate::service::binary;

/// The environment variable with the addresses, as JSON, of the servers that a test run shares. `cluster with-servers` sets it.
pub const SERVERS_VARIABLE: &str = "CLUSTER_SERVERS";

struct SharedServers {
    addresses: Addresses,
    // The servers stop when this pipe closes, so also when this process is killed.
    _keep_alive: Option<ChildStdin>,
}

static SHARED: OnceCell<SharedServers> = OnceCell::const_new();

/// The addresses of the shared servers. The first caller of the process starts them, unless the test run has provided some.
pub(crate) async fn addresses() -> anyhow::Result<Addresses> {
    let shared = SHARED
        .get_or_try_init(|| async { tokio::task::spawn_blocking(obtain).await? })
        .await?;
    Ok(shared.addresses.clone())
}

fn obtain() -> anyhow::Result<SharedServers> {
    if let Some(given) = std::env::var_os(SERVERS_VARIABLE) {
        let text = given.into_string().ok().context("CLUSTER_SERVERS is not text")?;
        let addresses =
            serde_json::from_str(&text).context("CLUSTER_SERVERS is not the JSON of server addresses")?;
        return Ok(SharedServers {
            addresses,
            _keep_alive: None,
        });
    }
    let mut child = Command::new(binary("cluster")?)
        .arg("servers")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start `cluster servers`")?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("`cluster servers` has no output")?;
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("could not read from `cluster servers`")?;
    let addresses =
        serde_json::from_str(&line).context("`cluster servers` did not start; see its message above")?;
    Ok(SharedServers {
        addresses,
        _keep_alive: child.stdin.take(),
    })
}
