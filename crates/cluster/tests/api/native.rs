//! `cluster run` and `cluster stop`, which `run.sh --native` and `stop.sh` call.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use cluster::{PortLease, Service, http_client, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const PORTS: [&str; 6] = [
    "CREATE_BUY_ORDER_EXT_PORT",
    "FETCH_BUY_ORDERS_EXT_PORT",
    "CONSOLE_EXT_PORT",
    "WRITE_MODEL_DB_EXT_PORT",
    "READ_MODEL_DB_EXT_PORT",
    "Q_EXT_ADMIN_PORT",
];

/// The folder of a native cluster: an `.env` with free ports, and a mark that identifies its processes.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    leases: Vec<PortLease>,
    mark: String,
}

impl Site {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let leases: Vec<PortLease> = PORTS
            .iter()
            .map(|_| PortLease::take())
            .collect::<anyhow::Result<_>>()?;
        let mark = format!("mark_{}", uuid::Uuid::new_v4().simple());
        let mut text = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.env"))?;
        for (name, lease) in PORTS.iter().zip(&leases) {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name}=")))
                .context("no such port in .env")?;
            text = text.replace(line, &format!("{name}={}", lease.port()));
        }
        // This variable is passed to every service and changes nothing.
        text.push_str(&format!("\nRUST_LOG=info,{mark}=info\n"));
        fs::write(folder.path().join("env"), text)?;
        Ok(Self { folder, leases, mark })
    }

    /// Sets a variable of the `.env` and returns the old value.
    fn set(&self, name: &str, value: &str) -> anyhow::Result<String> {
        let path = self.folder.path().join("env");
        let text = fs::read_to_string(&path)?;
        let prefix = format!("{name}=");
        let line = text
            .lines()
            .find(|line| line.starts_with(&prefix))
            .with_context(|| format!("no {name} in .env"))?;
        fs::write(&path, text.replace(line, &format!("{prefix}{value}")))?;
        Ok(line[prefix.len()..].to_owned())
    }

    fn command(&self, command: &str, more: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_cluster"));
        program
            .arg(command)
            .arg("--folder")
            .arg(self.folder.path().join("state"));
        if command == "run" {
            program
                .arg("--env-file")
                .arg(self.folder.path().join("env"))
                .args(["--prices", "simulator"]);
        }
        for name in PORTS {
            program.env_remove(name);
        }
        program.env_remove("RUST_LOG").args(more);
        program
    }

    pub(crate) fn call(&self, command: &str, more: &[&str]) -> anyhow::Result<Output> {
        self.call_with(command, more, &[])
    }

    pub(crate) fn call_with(
        &self,
        command: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        // Output goes to files, because a process in the background would keep a pipe open.
        let (out, error) = (self.folder.path().join("out"), self.folder.path().join("error"));
        let mut program = self.command(command, more);
        program
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&error)?);
        let status = program.status()?;
        Ok(Output {
            status,
            stdout: fs::read(out)?,
            stderr: fs::read(error)?,
        })
    }

    pub(crate) fn succeeds(&self, command: &str, more: &[&str]) -> anyhow::Result<String> {
        let (succeeded, said) = self.called(command, more)?;
        anyhow::ensure!(succeeded, "{command} failed: {said}");
        Ok(said)
    }

    pub(crate) fn fails(&self, command: &str, more: &[&str]) -> anyhow::Result<String> {
        let (succeeded, said) = self.called(command, more)?;
        anyhow::ensure!(!succeeded, "{command} succeeded: {said}");
        Ok(said)
    }

    /// Whether it succeeded, and its output.
    fn called(&self, command: &str, more: &[&str]) -> anyhow::Result<(bool, String)> {
        let output = self.call(command, more)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    pub(crate) fn url(&self, port: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.leases[port].port())
    }

    pub(crate) async fn put_order(&self) -> anyhow::Result<()> {
        let body = cluster::new_order("GBP", "1.00");
        let request = http_client()?.put(self.url(0, "/buy_order")).json(&body);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    pub(crate) async fn orders(&self) -> anyhow::Result<usize> {
        let request = http_client()?.get(self.url(1, "/buy_orders"));
        let page: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(page["rows"].as_array().context("no rows")?.len())
    }

    /// The processes of this cluster: services are found by the mark in their environment, the others by the folder.
    pub(crate) fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let ours = |process: &PathBuf| {
            let read = |name| {
                fs::read(process.join(name)).map_or_else(
                    |_| String::new(),
                    |bytes| String::from_utf8_lossy(&bytes).into_owned(),
                )
            };
            let command = read("cmdline");
            (read("environ").contains(&self.mark)
                || command.contains(&folder)
                || read("environ").contains(&folder))
            .then_some(command)
        };
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| ours(&entry.path()))
            .collect()
    }

    /// The processes of this cluster that run this program.
    fn pids_of(&self, program: &str) -> Vec<i32> {
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        let ours = processes.filter(|process| {
            let runs_it = process.exe().is_ok_and(|path| path == Path::new(program));
            let marked = |environment: HashMap<OsString, OsString>| {
                environment
                    .values()
                    .any(|value| value.to_string_lossy().contains(&self.mark))
            };
            runs_it && process.environ().is_ok_and(marked)
        });
        ours.map(|process| process.pid()).collect()
    }

    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        Ok(fs::read_to_string(self.folder.path().join("state/lock"))?
            .trim()
            .parse()?)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.call("stop", &[]);
    }
}

#[tokio::test]
async fn orders_survive_a_restart_and_fresh_forgets_them_and_stop_leaves_no_process() -> anyhow::Result<()> {
    let site = Site::new()?;
    let said = site.succeeds("run", &["--detach"])?;
    assert!(
        said.contains("curl -w '\\n' -X PUT") && said.contains(&site.url(0, "/docs")),
        "{said}"
    );
    // On new data there is no role yet when the services start.
    for service in Service::ALL {
        let log = site
            .folder
            .path()
            .join(format!("state/logs/{}.log", service.name()));
        let events = fs::read_to_string(log)?;
        assert!(!events.contains("failed_to_connect_to_database"), "{events}");
    }
    site.put_order().await?;
    wait_until("the order is in the page", LIMIT, async || {
        Ok(site.orders().await? == 1)
    })
    .await?;

    let refused = site.fails("run", &[])?;
    assert!(
        refused.contains("a cluster is already running") && refused.contains("./stop.sh"),
        "{refused}"
    );
    assert_eq!(site.orders().await?, 1);

    site.succeeds("stop", &[])?;
    assert_eq!(site.processes(), Vec::<String>::new());
    site.succeeds("stop", &[])?;

    site.succeeds("run", &["--detach"])?;
    assert_eq!(site.orders().await?, 1);

    // When it is killed, everything ends.
    let pid = rustix::process::Pid::from_raw(site.pid()?).context("no process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    wait_until("nothing is left of it", LIMIT, async || {
        Ok(site.processes().is_empty())
    })
    .await?;

    site.succeeds("run", &["--detach", "--fresh"])?;
    assert_eq!(site.orders().await?, 0);
    site.put_order().await?;
    site.succeeds("stop", &[])?;
    assert_eq!(site.processes(), Vec::<String>::new());
    Ok(())
}

#[test]
fn data_made_with_other_credentials_is_kept_and_the_start_ends_with_a_sentence() -> anyhow::Result<()> {
    let site = Site::new()?;
    site.succeeds("run", &["--detach"])?;
    site.succeeds("stop", &[])?;
    let variable = "WRITE_MODEL_POSTGRES_PASSWORD";
    let kept = site.set(variable, "another")?;
    let message = site.fails("run", &["--detach"])?;
    assert!(
        message.contains("PostgreSQL refuses user")
            && message.contains("--fresh would delete all orders")
            && message.contains("set these in .env"),
        "{message}"
    );
    assert_eq!(site.processes(), Vec::<String>::new());
    site.set(variable, &kept)?;
    site.succeeds("run", &["--detach"])?;
    Ok(())
}

#[tokio::test]
async fn the_users_of_the_broker_follow_their_passwords_and_no_order_is_lost() -> anyhow::Result<()> {
    let site = Site::new()?;
    site.succeeds("run", &["--detach"])?;
    site.put_order().await?;
    site.succeeds("stop", &[])?;
    for user in ["", "MIGRATION_", "CREATE_BUY_ORDER_", "READ_MODEL_SYNC_"] {
        site.set(&format!("{user}Q_PWD"), "another")?;
    }
    site.succeeds("run", &["--detach"])?;
    site.put_order().await?;
    wait_until("both orders are in the page", LIMIT, async || {
        Ok(site.orders().await? == 2)
    })
    .await
}

/// A folder with our scripts, in which the cluster of a site is the one that runs.
pub(crate) fn scripts_of(site: &Site) -> anyhow::Result<tempfile::TempDir> {
    let clone = tempfile::tempdir()?;
    fs::create_dir(clone.path().join("scripts"))?;
    for entry in fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), clone.path().join("scripts").join(entry.file_name()))?;
        }
    }
    symlink(site.folder.path().join("state"), clone.path().join(".cluster"))?;
    symlink(site.folder.path().join("env"), clone.path().join(".env"))?;
    Ok(clone)
}

/// The files below a folder that every user can read.
fn readable_by_all(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let mode = found.permissions().mode();
        if found.is_dir() && mode & 0o001 != 0 {
            files.extend(readable_by_all(&path)?);
        } else if found.is_file() && mode & 0o004 != 0 {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn passwords_are_neither_in_files_that_all_may_read_nor_in_arguments() -> anyhow::Result<()> {
    let site = Site::new()?;
    // So that no other process of the machine has them.
    let secret = format!("secret_{}", uuid::Uuid::new_v4().simple());
    for name in [
        "WRITE_MODEL_POSTGRES_PASSWORD",
        "READ_MODEL_POSTGRES_PASSWORD",
        "WRITE_MODEL_DB_PWD",
        "READ_MODEL_DB_PWD",
        "CREATE_BUY_ORDER_DB_PWD",
        "BUY_ORDER_VOIDER_DB_PWD",
        "READ_MODEL_SYNC_DB_PWD",
        "FETCH_BUY_ORDERS_DB_PWD",
        "Q_PWD",
        "MIGRATION_Q_PWD",
        "CREATE_BUY_ORDER_Q_PWD",
        "READ_MODEL_SYNC_Q_PWD",
    ] {
        site.set(name, &secret)?;
    }
    // As a release left it that did not close it.
    fs::create_dir(site.folder.path().join("state"))?;
    fs::write(site.folder.path().join("state/run.log"), "")?;
    site.succeeds("run", &["--detach"])?;
    for file in readable_by_all(&site.folder.path().join("state"))? {
        let text = fs::read(&file)?;
        assert!(
            !String::from_utf8_lossy(&text).contains(&secret),
            "{}",
            file.display()
        );
    }

    let clone = scripts_of(&site)?;
    let scripts = "for _ in 1 2 3 4 5; do
        scripts/ask.sh create_buy_order healthcheck && scripts/psql.sh write_model 'SELECT pg_sleep(0.01)' && scripts/queue.sh overview &&
        scripts/dead_letters.sh list && scripts/verify.sh || exit
    done";
    let log = fs::File::create(clone.path().join("log"))?;
    let mut running = Command::new("bash")
        .args(["-c", scripts])
        .current_dir(clone.path())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut shown = Vec::new();
    let status = loop {
        for process in fs::read_dir("/proc")?.flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            if arguments.contains(&secret) {
                shown.push(arguments);
            }
        }
        if let Some(status) = running.try_wait()? {
            break status;
        }
    };
    let said = fs::read_to_string(clone.path().join("log"))?;
    assert!(status.success(), "{said}");
    assert_eq!(shown, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn names_and_passwords_of_any_characters_work_and_a_shell_may_set_them() -> anyhow::Result<()> {
    let site = Site::new()?;
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "\\'"));
    let hard = r##" pa#ss" 'a' \b #c $d x%20@/:;&=<>|`!~{} ä€ "##;
    for model in ["WRITE_MODEL", "READ_MODEL"] {
        for (variable, value) in [
            ("POSTGRES_USER", "me: #1 /@%20ä"),
            ("DB_USER", "me: #1 /@%20ä"),
            ("POSTGRES_PASSWORD", hard),
            ("DB_PWD", hard),
            ("POSTGRES_DB", "it's \"mine\" #1 \\x %2f/ä"),
            ("DB_NAME", "it's \"mine\" #1 \\x %2f/ä"),
        ] {
            site.set(&format!("{model}_{variable}"), &quoted(value))?;
        }
    }
    for (name, value) in [
        ("READ_MODEL_DB_USER", "it's \"mine\" \\x ä"),
        ("FETCH_BUY_ORDERS_DB_USER", "it's \"another\" \\x ä"),
        ("FETCH_BUY_ORDERS_DB_PWD", hard),
        ("Q_USER", "it's \"me\" #1 \\x $y/ä"),
        ("MIGRATION_Q_USER", "it's \"mine\": #1 \\x $y/ä"),
        ("MIGRATION_Q_PWD", hard),
        ("CREATE_BUY_ORDER_Q_USER", "it's \"new\" #1 \\x $y/ä"),
        ("CREATE_BUY_ORDER_Q_PWD", hard),
        ("READ_MODEL_SYNC_Q_USER", "[a-z]+ .* \\ ä"),
        ("READ_MODEL_SYNC_Q_PWD", hard),
        ("Q_VHOST", "/ä #%2f"),
        ("Q_EXCHANGE", "ä #1 [.*+?]"),
    ] {
        site.set(name, &quoted(value))?;
    }
    // From the environment, where no character is special. In rabbitmq.conf `#` would start a comment.
    for password in ["pa#ss"; 2] {
        let ended = site.call_with("run", &["--detach"], &[("Q_PWD", password)])?;
        assert!(ended.status.success(), "{ended:?}");
        site.put_order().await?;
        site.succeeds("stop", &[])?;
    }
    site.set("Q_PWD", "'pa#ss'")?;
    site.succeeds("run", &["--detach"])?;
    wait_until("both orders are in the page", LIMIT, async || {
        Ok(site.orders().await? == 2)
    })
    .await
}

#[test]
fn what_cannot_be_a_name_of_the_private_servers_is_refused_by_name() -> anyhow::Result<()> {
    let site = Site::new()?;
    let kept = site.set("Q_USER", "a:b")?;
    let said = site.fails("run", &["--detach"])?;
    assert!(said.contains("Q_USER contains a colon"), "{said}");
    site.set("Q_USER", &kept)?;
    let kept = site.set("READ_MODEL_POSTGRES_USER", "a\"b")?;
    let said = site.fails("run", &["--detach"])?;
    assert!(
        said.contains("READ_MODEL_POSTGRES_USER contains a quote"),
        "{said}"
    );
    site.set("READ_MODEL_POSTGRES_USER", &kept)?;
    site.set("Q_PWD", "a$b")?;
    let said = site.fails("run", &["--detach"])?;
    assert!(said.contains("Q_PWD") && said.contains("single quotes"), "{said}");
    assert_eq!(site.processes(), Vec::<String>::new());
    Ok(())
}

/// As with `./run.sh | head`.
#[tokio::test]
async fn a_cluster_whose_output_nobody_reads_any_more_still_restarts_its_parts() -> anyhow::Result<()> {
    let site = Site::new()?;
    let mut program = site.command("run", &[]).stdout(Stdio::piped()).spawn()?;
    let mut first_line = String::new();
    BufReader::new(program.stdout.take().context("no output")?).read_line(&mut first_line)?;
    assert!(first_line.starts_with("starting PostgreSQL"), "{first_line}");
    let health = site.url(1, "/healthcheck");
    let is_healthy = async || {
        let answer = http_client()?.get(&health).send().await?;
        anyhow::Ok(answer.status().is_success())
    };
    // Before, a part that ends would end the start.
    let ready = site.folder.path().join("state/ready");
    wait_until("the cluster is up", LIMIT, async || Ok(ready.exists())).await?;
    let service = env!("CARGO_BIN_EXE_cluster").replace("/cluster", "/fetch_buy_orders");
    let pids = site.pids_of(&service);
    assert_eq!(pids.len(), 1, "{pids:?}");
    kill_process(Pid::from_raw(pids[0]).context("no process")?, Signal::KILL)?;
    wait_until("it is restarted", LIMIT, async || {
        let now = site.pids_of(&service);
        Ok(now.len() == 1 && now != pids && is_healthy().await?)
    })
    .await?;
    crate::servers::terminate(program.id());
    assert_eq!(program.wait()?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn an_interrupted_start_leaves_no_process() -> anyhow::Result<()> {
    let site = Site::new()?;
    let mut program = site.command("run", &[]).stdout(Stdio::null()).spawn()?;
    wait_until("a server was started", LIMIT, async || {
        Ok(site.processes().len() > 2)
    })
    .await?;
    crate::servers::terminate(program.id());
    assert_eq!(program.wait()?.code(), Some(130));
    wait_until("nothing is left of it", LIMIT, async || {
        Ok(site.processes().is_empty())
    })
    .await
}

#[test]
fn a_taken_port_is_named_with_its_variable_and_nothing_is_started() -> anyhow::Result<()> {
    let site = Site::new()?;
    let port = site.leases[4].port();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    let message = site.fails("run", &["--detach"])? + &site.fails("run", &[])?;
    let sentence = format!(
        "port {port} is taken by another program: end it, or set READ_MODEL_DB_EXT_PORT to another port"
    );
    assert!(message.contains(&sentence), "{message}");
    assert_eq!(site.processes(), Vec::<String>::new());
    Ok(())
}

#[test]
fn stop_without_a_cluster_is_a_success() -> anyhow::Result<()> {
    let said = Site::new()?.succeeds("stop", &[])?;
    assert!(said.contains("no native cluster is running"), "{said}");
    Ok(())
}
