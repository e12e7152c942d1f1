//! One private PostgreSQL instance.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::setup::{Durability, START_LIMIT, Setup};
use crate::account::{Account, private_directory, private_file};
use crate::address::{DatabaseAddress, Owner};
use crate::ports::Lease;
use crate::process::{Output, Process, Program, clock_variables, locked};
use crate::wait::wait_until;

/// How long the child processes of a killed server may take to notice that it is gone.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);

/// The working directory of its programs. They need its path, which fails if the account cannot read the directory, or if it is on a disk of
/// another mount namespace.
const WORKING_DIRECTORY: &str = "/";

/// An instance that can be stopped, killed and started again on the same port.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: DatabaseAddress,
    program: Program,
    output: Output,
    data: PathBuf,
    /// Whether this process has created the data.
    is_new: bool,
    process: Mutex<Option<Process>>,
    /// Environment variables that shift its clock from its next start on.
    clock: Mutex<BTreeMap<String, String>>,
    _lease: Option<Lease>,
}

impl Postgres {
    /// Prepares an instance and starts it. Creates the database and its owner if they are missing.
    pub(crate) async fn start(
        folder: &Path,
        address: DatabaseAddress,
        setup: Setup<'_>,
        output: Output,
        lease: Option<Lease>,
    ) -> anyhow::Result<Self> {
        let server = Self::prepare(folder, address, setup, output, lease).await?;
        server.start_again().await?;
        server.create_database().await?;
        Ok(server)
    }

    /// An instance that is not started yet, with its data in `folder`. Creates the data and the administrator if they are missing.
    pub(crate) async fn prepare(
        folder: &Path,
        address: DatabaseAddress,
        setup: Setup<'_>,
        output: Output,
        lease: Option<Lease>,
    ) -> anyhow::Result<Self> {
        let binaries = postgres_binaries()?;
        let account = Account::for_server("postgres")?;
        private_directory(folder, account.as_ref())?;
        let data = folder.join("data");
        let is_new = !data.join("PG_VERSION").exists();
        if is_new {
            initialise(&binaries, folder, &address, account.as_ref()).await?;
        }
        Ok(Self {
            program: program(&binaries, folder, &address, setup, account),
            output,
            data,
            is_new,
            address,
            process: Mutex::new(None),
            clock: Mutex::default(),
            _lease: lease,
        })
    }

    /// Its address.
    pub(crate) fn address(&self) -> &DatabaseAddress {
        &self.address
    }

    /// Starts the process on the same port and data, and waits until it answers.
    pub(crate) async fn start_again(&self) -> anyhow::Result<()> {
        self.launch().await?;
        self.wait_until_it_answers().await
    }

    /// Starts the process on the same port and data.
    pub(crate) async fn launch(&self) -> anyhow::Result<()> {
        self.stop();
        self.end_orphans().await?;
        *locked(&self.process) = Some(self.program_now().start(&self.output)?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it has ended, refuses our credentials, or does not answer in time.
    pub(crate) async fn wait_until_it_answers(&self) -> anyhow::Result<()> {
        let maintenance = self.address.named("postgres").options();
        let mut refused = false;
        wait_until("PostgreSQL answers", START_LIMIT, async || {
            // A server that has ended will never answer.
            if self.with(Process::still_runs).is_err() {
                return Ok(true);
            }
            let connected = PgConnection::connect_with(&maintenance).await;
            refused = connected.as_ref().is_err_and(refuses_credentials);
            if !refused {
                connected?.close().await?;
            }
            Ok(true)
        })
        .await?;
        if refused {
            bail!("{}", self.refusal());
        }
        self.with(Process::still_runs)
    }

    /// Whether it takes connections. A refused login is an answer, too: somebody may have changed the password since.
    pub(crate) async fn answers(&self) -> bool {
        match PgConnection::connect_with(&self.address.named("postgres").options()).await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(error) => refuses_credentials(&error),
        }
    }

    /// Waits until it answers, and starts it if it has ended.
    pub(crate) async fn start_if_ended(&self) -> anyhow::Result<()> {
        let maintenance = self.address.named("postgres").options();
        wait_until("PostgreSQL answers again", START_LIMIT, async || {
            // Checked each time, because it may still be ending.
            if self.still_runs().is_err() {
                self.start_again().await?;
            }
            PgConnection::connect_with(&maintenance).await?.close().await?;
            Ok(true)
        })
        .await
    }

    /// Shifts its wall clock, in the syntax of libfaketime, or resets it, from its next start on.
    pub(crate) fn set_clock(&self, offset: Option<&str>) -> anyhow::Result<()> {
        let variables = offset.map(clock_variables).transpose()?;
        *locked(&self.clock) = variables.unwrap_or_default();
        Ok(())
    }

    /// The program with the current clock. `env` sets the clock after setpriv has changed the user, because libfaketime creates files for the user
    /// that it sees first.
    fn program_now(&self) -> Program {
        let mut program = self.program.clone();
        let clock = locked(&self.clock);
        if !clock.is_empty() {
            let mut arguments: Vec<OsString> = clock
                .iter()
                .map(|(name, value)| format!("{name}={value}").into())
                .collect();
            arguments.push(program.path.into_os_string());
            arguments.append(&mut program.arguments);
            program.path = "/usr/bin/env".into();
            program.arguments = arguments;
        }
        program
    }

    /// Limits the WAL to about 64 MB, also after a restart. The default is a gigabyte.
    pub(crate) async fn keep_log_small(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.address.named("postgres").options()).await?;
        let statements = [
            // The minimum: two segments.
            "ALTER SYSTEM SET min_wal_size = '32MB'",
            "ALTER SYSTEM SET max_wal_size = '64MB'",
            "SELECT pg_reload_conf()",
        ];
        for statement in statements {
            sqlx::query(statement).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    /// Stops it with its usual signal: no new connections, and open ones are ended.
    pub(crate) fn stop(&self) {
        // The lock is released before the wait.
        let process = locked(&self.process).take();
        if let Some(process) = process {
            process.end_blocking();
        }
    }

    /// Stops it at once by SIGQUIT, without a checkpoint.
    pub(crate) async fn stop_immediately(&self) -> anyhow::Result<()> {
        self.signal(Signal::QUIT)?;
        let ended = async || Ok(self.with(|process| Ok(process.ended().is_some()))?);
        wait_until("PostgreSQL has stopped", self.program.grace, ended).await
    }

    /// The child processes of a killed server end when they are idle next, and a new server does not start while one of them uses the data. Waits
    /// for them, and kills those that do not end in time.
    async fn end_orphans(&self) -> anyhow::Result<()> {
        let Ok(data) = fs::metadata(&self.data) else {
            return Ok(());
        };
        let since = Instant::now();
        loop {
            let left = working_in(&data);
            if left.is_empty() {
                return Ok(());
            }
            let waited = since.elapsed();
            ensure!(
                waited < 2 * NOTICE_LIMIT,
                "the processes of the killed server do not end: {left:?}"
            );
            if waited > NOTICE_LIMIT {
                for process in left {
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills its main process. Its child processes end when they notice.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.with(|process| process.kill().map(drop))
    }

    /// Sends a signal to its main process.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.with(|process| process.signal(signal))
    }

    /// Fails if it has ended, with the last lines of its output.
    pub(crate) fn still_runs(&self) -> anyhow::Result<()> {
        self.with(Process::still_runs)
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        locked(&self.process).as_ref().and_then(Process::ended)
    }

    /// The last lines of its output.
    pub(crate) fn tail(&self) -> String {
        self.output.tail()
    }

    /// Its process id, if it was started.
    pub(crate) fn pid(&self) -> Option<u32> {
        locked(&self.process).as_ref().map(Process::pid)
    }

    /// Why the server refuses our credentials, and what to do. PostgreSQL does not distinguish a wrong password from a missing role.
    fn refusal(&self) -> String {
        let (user, folder) = (&self.address.user, self.data.display());
        if self.is_new {
            return format!(
                "PostgreSQL refuses user {user} with the password that its new data in {folder} was created with: please report this"
            );
        }
        format!(
            "PostgreSQL refuses user {user}. Its data in {folder} has the user and password of its first start: set these in .env. \
             To change a password, start with the old one, run ALTER ROLE … PASSWORD, then change .env. (--fresh would delete all orders.)"
        )
    }

    fn with<T>(&self, action: impl FnOnce(&Process) -> anyhow::Result<T>) -> anyhow::Result<T> {
        action(
            locked(&self.process)
                .as_ref()
                .context("the PostgreSQL instance was stopped")?,
        )
    }

    /// Creates the database and its owner if they are missing.
    pub(crate) async fn create_database(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.address.named("postgres").options()).await?;
        let exists = sqlx::query("SELECT FROM pg_database WHERE datname = $1").bind(&self.address.name);
        if exists.fetch_optional(&mut connection).await?.is_none() {
            let statement = format!("CREATE DATABASE \"{}\"", self.address.name.replace('"', "\"\""));
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await?;
        }
        connection.close().await?;
        create_owner(&self.address).await
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the owner of a database, and gives it what the administrator owns there, as docker/postgres/owner.sh does in a container.
///
/// # Errors
/// When the server is away.
pub async fn create_owner(database: &DatabaseAddress) -> anyhow::Result<()> {
    const CREATE_OWNER: &str = include_str!("../../../../migrations/owner.sql");
    let mut connection = PgConnection::connect_with(&database.options()).await?;
    let Owner { user, password } = &database.owner;
    sqlx::query(
        "SELECT set_config('pydist.owner', $1, false), set_config('pydist.owner_password', $2, false)",
    )
    .bind(user)
    .bind(password)
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql(CREATE_OWNER)
        .execute(&mut connection)
        .await
        .context("could not create the owner of the database")?;
    Ok(connection.close().await?)
}

/// The processes whose working directory this is. Compared by device and inode: in their mount namespace the path may differ.
fn working_in(directory: &fs::Metadata) -> Vec<Pid> {
    let works_there = |pid: &i32| {
        let theirs = fs::metadata(format!("/proc/{pid}/cwd"));
        theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (directory.dev(), directory.ino()))
    };
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes
        .map(|process| process.pid)
        .filter(works_there)
        .filter_map(Pid::from_raw)
        .collect()
}

/// Whether the server refuses the credentials, so that waiting is useless. `invalid_password` also means a missing role.
fn refuses_credentials(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "28P01")
}

/// The folder with `initdb`, `postgres` and the tools: that of Debian's newest version, else one of `PATH`.
///
/// # Errors
/// When PostgreSQL is not installed.
pub fn postgres_binaries() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, folder)| folder.join("initdb").exists() && folder.join("postgres").exists())
        .max()
        .map(|(_, folder)| folder);
    let searched = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
    };
    newest
        .or_else(searched)
        .context("PostgreSQL is not installed: install the package `postgresql`")
}

fn program(
    binaries: &Path,
    folder: &Path,
    address: &DatabaseAddress,
    Setup {
        durability,
        settings: own,
    }: Setup<'_>,
    account: Option<Account>,
) -> Program {
    let mut settings = vec![
        format!("port={}", address.port),
        "listen_addresses=127.0.0.1".to_owned(),
        // TCP only: the path of a socket is limited to 107 bytes, and the folder of the repository may be longer.
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=64MB".to_owned(),
        "logging_collector=off".to_owned(),
        "timezone=UTC".to_owned(),
    ];
    if durability == Durability::None {
        // Commits still survive the end of a process, which tests cause, but not a crash of the machine. With synchronous_commit
        // off, a kill would lose commits, too.
        settings.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
    }
    // PostgreSQL uses the last value of a parameter that is given twice.
    settings.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
    let mut program = Program::new("PostgreSQL", binaries.join("postgres"))
        .arguments(["-D".into(), folder.join("data").into_os_string()])
        .arguments(settings.iter().flat_map(|setting| ["-c", setting]));
    program.environment = environment();
    program.directory = Some(WORKING_DIRECTORY.into());
    program.account = account;
    // INT ends sessions and writes a checkpoint. QUIT ends at once.
    program.end_with = if durability == Durability::Full {
        Signal::INT
    } else {
        Signal::QUIT
    };
    program.grace = Duration::from_secs(30);
    program
}

fn environment() -> Vec<(String, String)> {
    [
        ("LC_ALL", "C"),
        ("TZ", "UTC"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

async fn initialise(
    binaries: &Path,
    folder: &Path,
    address: &DatabaseAddress,
    account: Option<&Account>,
) -> anyhow::Result<()> {
    // Created in another folder and renamed when complete, so that an interrupted initdb leaves nothing that looks like data.
    let (unfinished, data) = (folder.join("data.unfinished"), folder.join("data"));
    if data.exists() {
        bail!(
            "{} is not a PostgreSQL data folder: delete it, or start with --fresh",
            data.display()
        );
    }
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let password_file = folder.join("password");
    private_file(&password_file, &address.password, account)?;
    let mut program = Program::new("initdb", binaries.join("initdb"))
        .arguments(["--pgdata".into(), unfinished.clone().into_os_string()])
        .arguments(["--pwfile".into(), password_file.clone().into_os_string()])
        .arguments([
            "--username",
            &address.user,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
    program.environment = environment();
    program.directory = Some(WORKING_DIRECTORY.into());
    program.account = account.cloned();
    let outcome = program.complete(START_LIMIT).await;
    fs::remove_file(&password_file)?;
    outcome?;
    fs::rename(&unfinished, &data).context("could not rename the new data folder")
}
