//! The commands `run` and `stop`.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::arguments::{FolderArgument, RunOptions};
use super::cluster::NativeCluster;
use super::contract::Contract;
use super::control::ControlSocket;
use super::folder::Folder;
use super::shutdown::ShutdownSignal;
use super::{detach, leftovers};
use crate::wait::wait_until;

const INTERRUPTED: u8 = 130;
/// Services drain for 4 s, RabbitMQ stops in about 6 s, PostgreSQL writes a checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(90);

/// Starts everything, runs until Ctrl-C or SIGTERM, and stops everything.
///
/// # Errors
/// When a part cannot be started. Nothing is left running.
pub async fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    if options.detach {
        return detach::run(&options).await;
    }
    if options.in_background {
        // A new session, so that it survives the end of the terminal.
        rustix::process::setsid().context("could not create a session")?;
    }
    let mut shutdown = ShutdownSignal::listen()?;
    let folder = Folder::make(&options.folder.path)?;
    let _lock = folder.lock()?;
    let _ = fs::remove_file(folder.ready_file());
    leftovers::wait_for_end(&folder.processes_file())?;
    // The path as it was given, because a full one may be too long for a socket.
    let control = ControlSocket::bind(options.folder.path.join("control"))?;
    let contract = Contract::read(&options.env_file)?;
    if options.fresh {
        say!("deleting all stored data");
        let data = folder.data()?;
        fs::remove_dir_all(&data).with_context(|| format!("could not delete {}", data.display()))?;
    }
    let cluster = tokio::select! {
        cluster = NativeCluster::start(&folder, contract, options.prices, options.auth) => cluster?,
        () = interrupted_while_starting(&mut shutdown) => {
            say!("everything is stopped");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    print_summary(&cluster, &folder)?;
    if !options.in_background {
        say!("Ctrl-C stops everything.\n");
    }
    fs::write(folder.ready_file(), std::process::id().to_string())?;
    let supervisor = cluster.supervise();
    tokio::select! {
        served = control.serve(supervisor.parts()) => served.context("the control socket failed")?,
        () = shutdown.wait() => {}
    }
    say!("stopping the services, then the servers; another Ctrl-C changes nothing");
    let _ = fs::remove_file(folder.ready_file());
    supervisor.end().await;
    drop(cluster);
    let _ = fs::remove_file(folder.processes_file());
    say!("everything is stopped; the data is kept");
    Ok(ExitCode::SUCCESS)
}

/// Says at once that what was started will be stopped, which takes seconds.
async fn interrupted_while_starting(shutdown: &mut ShutdownSignal) {
    shutdown.wait().await;
    say!("interrupted: stopping what was started; another Ctrl-C changes nothing");
}

/// Stops the cluster of this folder, and nothing else.
///
/// # Errors
/// When it does not end.
pub async fn stop(folder: &FolderArgument) -> anyhow::Result<ExitCode> {
    let Some(folder) = Folder::existing(&folder.path) else {
        say!("no native cluster is running");
        return Ok(ExitCode::SUCCESS);
    };
    if folder.is_locked()? {
        let holder = folder
            .holder()
            .context("the lock of the running cluster does not contain its process id")?;
        // The holder of the lock is a cluster. This check is for the case that it has just ended and its id was reused.
        let command = match fs::read_link(format!("/proc/{holder}/exe")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!(
                    "the cluster that runs here (process {holder}) belongs to another user: stop it as that user"
                )
            }
            // Without a program it is just ending: somebody has killed it.
            read => read.ok(),
        };
        if let Some(command) = command {
            let name = command.file_name().unwrap_or_default();
            // Its binary may have been deleted or rebuilt since.
            if name != "cluster" && name != "cluster (deleted)" {
                bail!(
                    "process {holder} of the lock is {}, not a cluster: it is left alone",
                    command.display()
                );
            }
            say!("stopping the native cluster (process {holder})");
            kill_process(Pid::from_raw(holder).context("not a process id")?, Signal::TERM)
                .context("could not signal it")?;
        }
        wait_until("the cluster has stopped", STOP_LIMIT, async || {
            Ok(!folder.is_locked()? && !leftovers::is_running(holder))
        })
        .await?;
        say!("stopped; the data is kept");
    } else {
        say!("no native cluster is running");
    }
    leftovers::wait_for_end(&folder.processes_file())?;
    Ok(ExitCode::SUCCESS)
}

fn print_summary(cluster: &NativeCluster, folder: &Folder) -> anyhow::Result<()> {
    let contract = cluster.contract();
    let port = |name| contract.port(name);
    let prices = cluster.prices();
    let create = port("CREATE_BUY_ORDER_EXT_PORT")?;
    let fetch = port("FETCH_BUY_ORDERS_EXT_PORT")?;
    let console = port("CONSOLE_EXT_PORT")?;
    let token = if cluster.demands_tokens() {
        "-H \"Authorization: Bearer $(scripts/token.sh)\" "
    } else {
        ""
    };
    let scheme = match contract.get("SERVICE_TLS_CERT_FILE") {
        Ok(_) => "https",
        Err(_) => "http",
    };
    say!(
        "\nThe cluster is healthy: {scheme}://localhost:{console} shows it.\
         \nPrices come from: {prices}\n\
         \n  create_buy_order   {scheme}://127.0.0.1:{create}/docs\
         \n  fetch_buy_orders   {scheme}://127.0.0.1:{fetch}/docs\
         \n  btc_price          {scheme}://127.0.0.1:{}/docs\
         \n  RabbitMQ           http://127.0.0.1:{}   user {}, password {}\
         \n  write model        {}\
         \n  read model         {}\
         \n  logs               {}\n\
         \nTry it:\n\
         \n  curl -w '\\n' -X PUT {scheme}://127.0.0.1:{create}/buy_order -H 'Content-Type: application/json' {token}\\\
         \n    -d '{{\"currency\":\"USD\",\"amount\":\"123.45\",\"idempotence_key\":\"{}\"}}'\
         \n  curl -w '\\n' {token}{scheme}://127.0.0.1:{fetch}/buy_orders\n",
        contract.get("BTC_PRICE_PORT")?,
        port("Q_EXT_ADMIN_PORT")?,
        contract.get("Q_USER")?,
        contract.get("Q_PWD")?,
        contract.database("write_model")?.uri(),
        contract.database("read_model")?.uri(),
        folder.logs().display(),
        uuid::Uuid::new_v4(),
    );
    Ok(())
}
