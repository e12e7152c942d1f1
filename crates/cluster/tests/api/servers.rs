//! `cluster servers` and `cluster with-servers`.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use cluster::Addresses;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) fn terminate(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
}

#[test]
fn servers_run_until_standard_input_ends() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    open_to_all(folder.path())?;
    let mut program = Command::new(env!("CARGO_BIN_EXE_cluster"))
        .arg("servers")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(program.stdout.take().context("no output")?).read_line(&mut line)?;
    let addresses: Addresses = serde_json::from_str(&line)?;
    let ports = [
        addresses.write_model.port,
        addresses.read_model.port,
        addresses.broker.port,
    ];
    let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
    assert!(ports.iter().all(listens));

    drop(program.stdin.take());
    assert!(program.wait()?.success());
    assert!(!ports.iter().any(listens));
    let left: Vec<_> = std::fs::read_dir(folder.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(left, [format!("pydist-cluster-ports-{user}").as_str()]);
    Ok(())
}

#[test]
fn a_command_shares_the_servers_and_its_exit_code_is_the_answer() -> anyhow::Result<()> {
    let script = "case $CLUSTER_SERVERS in *write_model*) exit 7;; esac";
    let mut program = Command::new(env!("CARGO_BIN_EXE_cluster"));
    let status = program
        .args(["with-servers", "--", "sh", "-c", script])
        .status()?;
    assert_eq!(status.code(), Some(7));
    Ok(())
}

/// If a test runs as root, its servers run as another account.
fn open_to_all(folder: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(
        folder,
        std::fs::Permissions::from_mode(0o755),
    )?)
}
