//! Parts of a native cluster that end: by a crash, or by `scripts/part.sh`. `cluster run` restarts what was not stopped.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Service, http_client, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::native::{Site, scripts_of};

const LIMIT: Duration = Duration::from_secs(120);
const SERVERS: [&str; 3] = ["queue", "write_model", "read_model"];

/// A running native cluster, and a clone whose scripts reach it.
struct Running {
    site: Site,
    clone: tempfile::TempDir,
}

impl Running {
    async fn start(variables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let site = Site::new()?;
        let started = site.call_with("run", &["--detach"], variables)?;
        ensure!(started.status.success(), "{started:?}");
        let clone = scripts_of(&site)?;
        let running = Self { site, clone };
        running.queues_are_registered().await?;
        Ok(running)
    }

    /// RabbitMQ 3.10 forgets a quorum queue if its node is killed within seconds of the first declaration.
    async fn queues_are_registered(&self) -> anyhow::Result<()> {
        let registry = "state/data/queue/data/pydist@localhost/quorum/pydist@localhost/names.dets";
        let registry = self.site.folder.path().join(registry);
        wait_until("the queues are registered on disk", LIMIT, async || {
            let bytes = fs::read(&registry)?;
            let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
            // An atom begins with its length.
            Ok(has("\u{d}%2F_buy_order") && has("%2F_buy_order.dead_letter"))
        })
        .await
    }

    /// Whether scripts/part.sh succeeded, and what it said.
    fn part(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let output = Command::new("scripts/part.sh")
            .args(arguments)
            .env_remove("COMPOSE_FILE")
            .current_dir(self.clone.path())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    fn part_succeeds(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (succeeded, said) = self.part(arguments)?;
        ensure!(succeeded, "part.sh {arguments:?} failed: {said}");
        Ok(said)
    }

    fn part_fails(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (succeeded, said) = self.part(arguments)?;
        ensure!(!succeeded, "part.sh {arguments:?} succeeded: {said}");
        Ok(said)
    }

    /// The condition of a part, and its process if it has one, as `scripts/part.sh list` prints them.
    fn listed(&self, part: &str) -> anyhow::Result<(String, Option<i32>)> {
        let list = self.part_succeeds(&["list"])?;
        let rest = list
            .lines()
            .find_map(|line| line.strip_prefix(part)?.strip_prefix(' '))
            .with_context(|| format!("no {part} in {list}"))?;
        Ok(match rest.split_once("process ") {
            Some((condition, process)) => (condition.trim().to_owned(), Some(process.trim().parse()?)),
            None => (rest.trim().to_owned(), None),
        })
    }

    fn process_of(&self, part: &str) -> anyhow::Result<i32> {
        self.listed(part)?
            .1
            .with_context(|| format!("{part} has no process"))
    }

    /// Waits until a part is healthy in another process than `before`.
    async fn recovers(&self, part: &str, before: i32) -> anyhow::Result<()> {
        wait_until("it is healthy in a new process", LIMIT, async || {
            let (condition, process) = self.listed(part)?;
            ensure!(
                condition == "healthy" && process != Some(before),
                "{part} is {condition}"
            );
            Ok(true)
        })
        .await
    }

    /// Begins to place orders, one after the other.
    fn client(&self) -> Client {
        let stopping = Arc::new(AtomicBool::new(false));
        let (url, stop) = (self.site.url(0, "/buy_order"), Arc::clone(&stopping));
        let placed = tokio::spawn(async move {
            let client = http_client()?;
            let mut accepted = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let answer = client
                    .put(&url)
                    .json(&cluster::new_order("GBP", "1.00"))
                    .send()
                    .await;
                if let Ok(answer) = answer.and_then(reqwest::Response::error_for_status) {
                    let order: Value = answer.json().await?;
                    accepted.push(order["buy_order"]["id"].as_str().context("no id")?.to_owned());
                }
                // At most 1000 orders are on one page.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(accepted)
        });
        Client { stopping, placed }
    }

    /// Waits until all these orders are on one page.
    async fn shows(&self, orders: &[String]) -> anyhow::Result<()> {
        let url = self.site.url(1, "/buy_orders?page_size=1000");
        wait_until("all accepted orders are on the page", LIMIT, async || {
            let page = http_client()?.get(&url).send().await?.error_for_status()?;
            let page = page.text().await?;
            let missing = orders.iter().filter(|order| !page.contains(*order)).count();
            ensure!(missing == 0, "{missing} of {} orders are missing", orders.len());
            Ok(true)
        })
        .await
    }

    fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.site.folder.path().join("state/run.log"))?)
    }
}

struct Client {
    stopping: Arc<AtomicBool>,
    placed: JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Client {
    /// Stops, and returns the ids of the orders that were accepted.
    async fn stop(self) -> anyhow::Result<Vec<String>> {
        self.stopping.store(true, Ordering::SeqCst);
        self.placed.await?
    }
}

fn kill(process: i32) -> anyhow::Result<()> {
    let process = Pid::from_raw(process).context("not a process id")?;
    Ok(kill_process(process, Signal::KILL)?)
}

#[tokio::test]
async fn servers_that_are_killed_come_back_with_their_data_and_no_accepted_order_is_lost()
-> anyhow::Result<()> {
    let running = Running::start(&[]).await?;
    let processes = || -> anyhow::Result<Vec<i32>> {
        Service::ALL
            .iter()
            .map(|service| running.process_of(service.name()))
            .collect()
    };
    let services = processes()?;
    let client = running.client();
    for server in SERVERS {
        let killed = running.process_of(server)?;
        kill(killed)?;
        running.recovers(server, killed).await?;
        let log = running.log()?;
        let line = format!("{server} ended (signal: 9 (SIGKILL)); it is restarted");
        assert!(
            log.contains(&line) && log.contains(&format!("{server} is healthy again after")),
            "{log}"
        );
    }
    let accepted = client.stop().await?;
    assert!(accepted.len() > 10, "{accepted:?}");
    running.shows(&accepted).await?;
    // They found the servers again at the same addresses.
    assert_eq!(processes()?, services);

    // The list of what a killed cluster leaves behind has the new processes, also one that does not answer yet.
    let killed = running.process_of("queue")?;
    kill(killed)?;
    let mut new = killed;
    wait_until("the queue has a new process", LIMIT, async || {
        new = running.process_of("queue")?;
        Ok(new != killed)
    })
    .await?;
    let recorded = fs::read_to_string(running.site.folder.path().join("state/processes"))?;
    for process in [new, running.process_of("write_model")?, services[0]] {
        let is_recorded = recorded
            .lines()
            .any(|line| line.starts_with(&format!("{process} ")));
        assert!(is_recorded, "{process} is not in {recorded}");
    }
    running.recovers("queue", killed).await?;
    kill(running.site.pid()?)?;
    running.site.succeeds("stop", &[])?;
    // Those that servers start themselves end a moment after their servers.
    wait_until("no process is left", LIMIT, async || {
        ensure!(
            running.site.processes().is_empty(),
            "{:?}",
            running.site.processes()
        );
        Ok(true)
    })
    .await?;

    // The socket that it left does not disturb.
    running.site.succeeds("run", &["--detach"])?;
    running.shows(&accepted).await
}

#[tokio::test]
async fn a_part_that_is_stopped_stays_so_until_it_is_started_and_orders_wait_for_it() -> anyhow::Result<()> {
    let running = Running::start(&[]).await?;
    let socket = fs::metadata(running.site.folder.path().join("state/control"))?;
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    for part in Service::ALL.iter().map(|service| service.name()).chain(SERVERS) {
        assert_eq!(running.listed(part)?.0, "healthy", "{part}");
    }
    let refused = running.part_fails(&["stop", "no/such part"])?;
    assert!(
        refused.contains("there is no part \"no/such part\"; the parts are write_model, read_model, queue, "),
        "{refused}"
    );

    assert_eq!(running.part_succeeds(&["stop", "queue"])?, "queue is stopped\n");
    assert_eq!(running.part_succeeds(&["stop", "queue"])?, "queue is stopped\n");
    running.site.put_order().await?;
    let refused = running.part_fails(&["kill", "queue"])?;
    assert_eq!(refused, "part: queue does not run: it is stopped\n");
    // It takes longer than the restart of a part that was not stopped would.
    let before = running.process_of("create_buy_order")?;
    let said = running.part_succeeds(&["restart", "create_buy_order"])?;
    assert!(said.starts_with("create_buy_order is healthy after "), "{said}");
    running.recovers("create_buy_order", before).await?;
    assert_eq!(running.listed("queue")?, ("stopped".to_owned(), None));
    let beam = |process: &String| process.contains("beam");
    assert!(!running.site.processes().iter().any(beam));
    assert_eq!(running.site.orders().await?, 0);

    let said = running.part_succeeds(&["start", "queue"])?;
    assert!(said.starts_with("queue is healthy after "), "{said}");
    wait_until("the order is on the page", LIMIT, async || {
        Ok(running.site.orders().await? == 1)
    })
    .await?;

    let before = running.process_of("read_model_sync")?;
    let said = running.part_succeeds(&["kill", "read_model_sync"])?;
    assert!(said.starts_with("read_model_sync was killed"), "{said}");
    running.recovers("read_model_sync", before).await?;

    // While a server starts again, too, everything can be stopped.
    running.part_succeeds(&["kill", "queue"])?;
    running.site.succeeds("stop", &[])?;
    assert_eq!(running.site.processes(), Vec::<String>::new());
    assert!(!running.site.folder.path().join("state/control").exists());
    let refused = running.part_fails(&["list"])?;
    assert_eq!(
        refused,
        "part: no cluster of this clone runs: ./run.sh starts one\n"
    );
    Ok(())
}

/// A program in the place of a service, which ends at once.
fn write_broken_program(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path)?;
    fs::write(path, "#!/bin/sh\necho 'I am broken'\nexit 3\n")?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The pauses that the log tells of, in seconds.
fn pauses(log: &str, part: &str) -> anyhow::Result<Vec<f32>> {
    log.lines()
        .filter(|line| line.starts_with(&format!("{part} ended")))
        .filter_map(|line| line.split_once("restarted in ")?.1.split_once(" s"))
        .map(|(pause, _)| Ok(pause.parse()?))
        .collect()
}

#[tokio::test]
async fn a_part_that_ends_again_and_again_is_tried_ever_more_rarely_and_recovers_by_itself()
-> anyhow::Result<()> {
    let binaries = tempfile::tempdir()?;
    for service in Service::ALL {
        symlink(service.binary()?, binaries.path().join(service.name()))?;
    }
    let folder = binaries.path().to_str().context("not UTF-8")?;
    let running = Running::start(&[("CLUSTER_BIN_DIR", folder)]).await?;
    let service = binaries.path().join("fetch_buy_orders");
    let data = running.site.folder.path().join("state/data/read_model/data");
    let away = data.with_extension("away");

    write_broken_program(&service)?;
    let killed = running.process_of("fetch_buy_orders")?;
    running.part_succeeds(&["kill", "fetch_buy_orders"])?;
    let killed_server = running.process_of("read_model")?;
    fs::rename(&data, &away)?;
    kill(killed_server)?;
    for part in ["fetch_buy_orders", "read_model"] {
        wait_until("it was tried some times", LIMIT, async || {
            Ok(pauses(&running.log()?, part)?.len() > 4)
        })
        .await?;
        let log = running.log()?;
        let pauses = pauses(&log, part)?;
        assert!(pauses[0] < 0.5 && pauses[4] > 1.5, "{part}: {pauses:?}");
        // Only the first failure comes with the last lines of the output.
        let told = log.matches(&format!("{part} ended")).count();
        assert_eq!(told, pauses.len() + 1, "{log}");
        assert_ne!(running.listed(part)?.0, "healthy");
    }
    assert!(!running.log()?.contains("I am broken"));
    let outputs = fs::read_to_string(running.site.folder.path().join("state/logs/fetch_buy_orders.log"))?;
    assert!(outputs.matches("I am broken").count() > 3, "{outputs}");

    fs::rename(&away, &data)?;
    running.recovers("read_model", killed_server).await?;
    fs::remove_file(&service)?;
    symlink(Service::FetchBuyOrders.binary()?, &service)?;
    running.recovers("fetch_buy_orders", killed).await
}
