//! `run` and `stop`.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::contract::Contract;
use super::folder::Folder;
use super::parts::Parts;
use super::{Interrupt, Place, RunOptions, detach, leftovers};
use crate::servers::DatabaseAddress;
use crate::wait::wait_until;

const INTERRUPTED: u8 = 130;
/// Services drain for 4 s, RabbitMQ stops in about 6 s, PostgreSQL writes a checkpoint.
const STOPS_WITHIN: Duration = Duration::from_secs(90);

/// Starts everything and stays until Ctrl-C or SIGTERM; then stops everything.
///
/// # Errors
/// When a part cannot be started, or a server ends; nothing is left running.
pub async fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    if options.detach {
        return detach::run(&options).await;
    }
    if options.in_background {
        // Away from the terminal: its end must not be ours.
        rustix::process::setsid().context("could not leave the terminal")?;
    }
    let mut interrupt = Interrupt::armed()?;
    let folder = Folder::make(&options.place.folder)?;
    let _lock = folder.lock()?;
    let _ = fs::remove_file(folder.ready_file());
    leftovers::wait_for_end(&folder.processes_file())?;
    let contract = Contract::read(&options.env_file)?;
    if options.fresh {
        println!("forgetting all stored data");
        let data = folder.data()?;
        fs::remove_dir_all(&data).with_context(|| format!("could not delete {}", data.display()))?;
    }
    let parts = tokio::select! {
        parts = Parts::start(&folder, contract, options.prices) => parts?,
        () = interrupt.wait() => {
            println!("interrupted: everything is stopped");
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    introduce(&parts, &folder)?;
    fs::write(folder.ready_file(), std::process::id().to_string())?;
    let ended = tokio::select! {
        error = parts.watch() => Some(error),
        () = interrupt.wait() => None,
    };
    println!("stopping the services, then the servers");
    let _ = fs::remove_file(folder.ready_file());
    drop(parts);
    let _ = fs::remove_file(folder.processes_file());
    println!("everything is stopped; the data is kept");
    ended.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Stops the cluster of this folder, and nothing else.
///
/// # Errors
/// When it does not end.
pub async fn stop(place: &Place) -> anyhow::Result<ExitCode> {
    let Some(folder) = Folder::existing(&place.folder) else {
        println!("no native cluster runs");
        return Ok(ExitCode::SUCCESS);
    };
    if folder.is_locked()? {
        let holder = folder
            .holder()
            .context("the lock of the running cluster does not name its process")?;
        // Whoever holds the lock is ours; this guards against the moment in which it ends and its id is given away.
        let command = match fs::read_link(format!("/proc/{holder}/exe")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("the cluster that runs here (process {holder}) is another user's: stop it as that user")
            }
            read => read.unwrap_or_default(),
        };
        let name = command.file_name().unwrap_or_default();
        // Its file may have been deleted or built anew since.
        if name != "cluster" && name != "cluster (deleted)" {
            bail!(
                "process {holder} of the lock is {}, not a cluster: not touched",
                command.display()
            );
        }
        println!("stopping the native cluster (process {holder})");
        kill_process(Pid::from_raw(holder).context("not a process id")?, Signal::TERM)
            .context("could not signal it")?;
        wait_until("the cluster has stopped", STOPS_WITHIN, async || {
            Ok(!folder.is_locked()? && !leftovers::runs(holder))
        })
        .await?;
        println!("stopped; the data is kept");
    } else {
        println!("no native cluster runs");
    }
    leftovers::wait_for_end(&folder.processes_file())?;
    Ok(ExitCode::SUCCESS)
}

fn introduce(parts: &Parts, folder: &Folder) -> anyhow::Result<()> {
    let contract = parts.contract();
    let port = |name| contract.port(name);
    let prices = parts.prices();
    let create = port("CREATE_BUY_ORDER_EXT_PORT")?;
    let fetch = port("FETCH_BUY_ORDERS_EXT_PORT")?;
    let database = |prefix: &str| -> anyhow::Result<String> {
        let variable = |name: &str| contract.get(&format!("{prefix}_{name}"));
        let port = port(match prefix {
            "WRITE_MODEL" => "WRITE_MODEL_DB_EXT_PORT",
            _ => "READ_MODEL_DB_EXT_PORT",
        })?;
        let address = DatabaseAddress {
            host: "127.0.0.1".to_owned(),
            port,
            user: variable("POSTGRES_USER")?.to_owned(),
            password: variable("POSTGRES_PASSWORD")?.to_owned(),
            name: variable("POSTGRES_DB")?.to_owned(),
        };
        Ok(address.uri())
    };
    println!(
        "\nThe cluster is healthy. Prices come from: {prices}\n\
         \n  create_buy_order   http://127.0.0.1:{create}/docs\
         \n  fetch_buy_orders   http://127.0.0.1:{fetch}/docs\
         \n  btc_price          http://127.0.0.1:{}/docs\
         \n  RabbitMQ           http://127.0.0.1:{}   user {}, password {}\
         \n  write model        {}\
         \n  read model         {}\
         \n  logs               {}\n\
         \nTry it:\n\
         \n  curl -X PUT http://127.0.0.1:{create}/buy_order -H 'Content-Type: application/json' \\\
         \n    -d '{{\"currency\":\"USD\",\"amount\":\"123.45\",\"idempotence_key\":\"{}\"}}'\
         \n  curl http://127.0.0.1:{fetch}/buy_orders\n",
        contract.get("BTC_PRICE_PORT")?,
        port("Q_EXT_ADMIN_PORT")?,
        contract.get("Q_USER")?,
        contract.get("Q_PWD")?,
        database("WRITE_MODEL")?,
        database("READ_MODEL")?,
        folder.logs().display(),
        uuid::Uuid::new_v4(),
    );
    Ok(())
}
