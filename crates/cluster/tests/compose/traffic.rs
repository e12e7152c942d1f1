//! A few clients that place orders and read pages all the time, and a ledger of the accepted orders.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::black_box::{Answer, Pages, System, common, ensure_a_proper_walk, walk};

/// No other order of this test is in this currency, so the ledger can be compared with the pages.
const CURRENCY: &str = "GBP";
const WRITERS: usize = 2;
const PAGE_SIZE: usize = 250;
const PAUSE_BETWEEN_ORDERS: Duration = Duration::from_millis(50);
const PAUSE_BETWEEN_WALKS: Duration = Duration::from_millis(100);
const PAUSE_BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// How long a request is repeated before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// The failures that clients may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tolerated {
    /// Every request succeeds at once.
    Nothing,
    /// `503` with `Retry-After`, and the repeat succeeds.
    Refusals,
    /// Also connections that are refused or reset.
    Absence,
}

#[derive(Debug, Default)]
struct Ledger {
    accepted: Vec<Value>,
    walks: usize,
    /// Requests that did not succeed at once, and the tolerance that each needs.
    incidents: Vec<(Tolerated, String)>,
    /// Why clients gave up.
    failures: Vec<String>,
}

/// Writers and a reader, until [`Traffic::settle`].
#[derive(Debug)]
pub(crate) struct Traffic {
    system: System,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Traffic {
    pub(crate) fn start(system: &System) -> Self {
        let client = Client {
            system: system.clone(),
            ledger: Arc::default(),
            stop: Arc::default(),
        };
        let writers = (0..WRITERS).map(|_| client.clone());
        let mut tasks: Vec<_> = writers
            .map(|writer| tokio::spawn(async move { writer.note(writer.write().await) }))
            .collect();
        let reader = client.clone();
        tasks.push(tokio::spawn(async move { reader.note(reader.read().await) }));
        Self {
            system: client.system,
            ledger: client.ledger,
            stop: client.stop,
            tasks,
        }
    }

    /// Runs `disturbance`, waits until orders and walks succeed after it, and fails when clients noticed more than is
    /// tolerated.
    pub(crate) async fn during(
        &self,
        tolerated: Tolerated,
        disturbance: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let incidents = locked(&self.ledger).incidents.len();
        disturbance.await?;
        let (accepted, walks) = self.progress();
        cluster::wait_until("orders and walks go on", PATIENCE, async || {
            let (accepted_now, walks_now) = self.progress();
            let failures = locked(&self.ledger).failures.len();
            // The second walk to end has begun after the disturbance.
            Ok(failures > 0 || (accepted_now >= accepted + 2 * WRITERS && walks_now >= walks + 2))
        })
        .await?;
        let ledger = locked(&self.ledger);
        let noticed = &ledger.incidents[incidents..];
        let worst = noticed.iter().max_by_key(|(needed, _)| *needed);
        if let Some((needed, incident)) = worst {
            eprintln!(
                "                   {} requests were repeated, such as: {incident}",
                noticed.len()
            );
            ensure!(
                *needed <= tolerated,
                "clients noticed more than {tolerated:?}: {noticed:#?}"
            );
        }
        ensure!(
            !self.tasks.iter().any(JoinHandle::is_finished),
            "a client gave up: {noticed:#?}"
        );
        Ok(())
    }

    /// Stops the clients and compares the ledger with the pages: every accepted order must be there once, as it was
    /// answered, and no others.
    pub(crate) async fn settle(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await?;
        }
        no_failure(&locked(&self.ledger))?;
        let accepted = std::mem::take(&mut locked(&self.ledger).accepted);
        self.system.projected(&accepted).await?;
        let book = self.system.book().await?;
        ensure_a_proper_walk(&book)?;
        let of_traffic = |row: &&Value| row["currency"] == CURRENCY;
        let mut ours: Vec<Value> = book.iter().filter(of_traffic).cloned().collect();
        let mut expected = accepted.clone();
        for orders in [&mut ours, &mut expected] {
            orders.sort_by_key(|order| order["id"].as_str().map(str::to_owned));
        }
        ensure!(
            ours == expected,
            "the book has other orders than the {} accepted: {} of {CURRENCY}",
            accepted.len(),
            ours.len()
        );
        eprintln!(
            "                   {} orders accepted, {} page walks",
            accepted.len(),
            locked(&self.ledger).walks
        );
        Ok(())
    }

    fn progress(&self) -> (usize, usize) {
        let ledger = locked(&self.ledger);
        (ledger.accepted.len(), ledger.walks)
    }
}

/// One client of the system.
#[derive(Debug, Clone)]
struct Client {
    system: System,
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    fn note(&self, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            locked(&self.ledger).failures.push(format!("{error:#}"));
        }
    }

    async fn write(&self) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let order = cluster::new_order(CURRENCY, "0.43");
            let mut accepted = self.insist(Request::Order(&order)).await?.json()?;
            locked(&self.ledger).accepted.push(accepted["buy_order"].take());
            tokio::time::sleep(PAUSE_BETWEEN_ORDERS).await;
        }
        Ok(())
    }

    /// Reads all pages again and again. Each walk must show the orders of the one before, once and unchanged.
    async fn read(&self) -> anyhow::Result<()> {
        let mut older = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let rows = walk(self, PAGE_SIZE).await?;
            ensure_a_proper_walk(&rows)?;
            ensure!(
                common(&rows, &older) == older,
                "a walk missed or changed an older order"
            );
            older = rows;
            locked(&self.ledger).walks += 1;
            tokio::time::sleep(PAUSE_BETWEEN_WALKS).await;
        }
        Ok(())
    }

    async fn send(&self, request: Request<'_>) -> anyhow::Result<Answer> {
        match request {
            Request::Order(body) => self.system.put(body).await,
            Request::Page(query) => self.system.page(query).await,
        }
    }

    /// Repeats the same request until it succeeds.
    async fn insist(&self, request: Request<'_>) -> anyhow::Result<Answer> {
        let started = Instant::now();
        loop {
            let (needed, incident) = match self.send(request).await {
                Ok(answer) if answer.status == 200 => return Ok(answer),
                Ok(answer) if answer.status == 503 && answer.header("retry-after").is_some() => (
                    Tolerated::Refusals,
                    format!("{request:?}: {} {}", answer.status, answer.text),
                ),
                Ok(answer) => bail!("{request:?} was answered with {answer:?}"),
                Err(error) => (Tolerated::Absence, format!("{request:?}: {error:#}")),
            };
            locked(&self.ledger).incidents.push((needed, incident));
            ensure!(
                started.elapsed() < PATIENCE,
                "{request:?} did not succeed within {PATIENCE:?}"
            );
            tokio::time::sleep(PAUSE_BETWEEN_TRIES).await;
        }
    }
}

impl Pages for Client {
    async fn page(&self, query: &str) -> anyhow::Result<Answer> {
        self.insist(Request::Page(query)).await
    }
}

/// The requests of a client.
#[derive(Debug, Clone, Copy)]
enum Request<'a> {
    Order(&'a Value),
    Page(&'a str),
}

fn no_failure(ledger: &Ledger) -> anyhow::Result<()> {
    ensure!(
        ledger.failures.is_empty(),
        "clients gave up: {:#?}",
        ledger.failures
    );
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
