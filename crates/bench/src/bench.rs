//! What the groups share: one cluster, a folder, and the figures.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, DatabaseAddress, Options, Service};

use crate::commits;
use crate::figures::Figures;
use crate::pgbench::{self, Amount, Work};
use crate::spent;
use crate::targets;
use crate::wrk::{self, Load, Outcome};

/// Connections of a load, as in the targets.
pub const CONNECTIONS: u32 = 64;
/// Orders in one transaction of `pgbench`: a batch as large as PostgreSQL takes when nothing else runs.
pub const BATCH: u32 = 64;

/// Transactions of `pgbench` in a quick run.
const TRANSACTIONS_QUICK: u32 = 64;

/// A run of the benchmarks.
#[derive(Debug)]
pub struct Bench {
    /// Whether it is a short run, which shows that everything works, not how fast.
    pub quick: bool,
    /// The figures so far.
    pub figures: Figures,
    failures: Vec<String>,
    notes: Vec<String>,
    folder: tempfile::TempDir,
    // Dropped in this order: the large one may use the servers of the other.
    large: Option<Rc<Cluster>>,
    cluster: Option<Rc<Cluster>>,
}

impl Bench {
    /// A new run.
    ///
    /// # Errors
    /// When there is no temporary folder to be had.
    pub fn new(quick: bool) -> anyhow::Result<Self> {
        Ok(Self {
            quick,
            figures: Figures::default(),
            failures: Vec::new(),
            notes: Vec::new(),
            folder: tempfile::tempdir().context("could not make a temporary folder")?,
            large: None,
            cluster: None,
        })
    }

    /// The duration of one measurement.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 5 })
    }

    /// A folder for scripts and logs, which is deleted at the end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The options of a benchmark's cluster: one process per service, on its own servers, which are as durable as in production.
    fn options() -> Options {
        let options = Options::default()
            .with_durable_servers()
            .with_brief_output()
            // Large enough for the indexes of 10 M orders, which are read at random; the default is for tests.
            .with_database_setting("shared_buffers", "3GB")
            .with_database_setting("max_wal_size", "4GB")
            .with_broker_setting(spent::BROKER_SETTING.0, spent::BROKER_SETTING.1);
        [commits::PARAMETER]
            .into_iter()
            .chain(spent::PARAMETERS)
            .fold(options, |options, (name, value)| {
                options.with_database_setting(name, value)
            })
    }

    /// The cluster that groups share. The first call starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        started(&mut self.cluster, Self::options()).await
    }

    /// The cluster whose databases are filled with many orders: see [`crate::history`]. The first call starts it. It has its own servers,
    /// except in a quick run, where it uses those of the other cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn large_cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        let options = if self.quick {
            Self::options().on_servers_at(self.cluster().await?.addresses())
        } else {
            Self::options()
        };
        started(&mut self.large, options).await
    }

    /// A new shared cluster, in which nothing was measured yet. A quick run keeps the existing one, because starting a cluster takes longer
    /// than most of its measurements.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn fresh_cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        if !self.quick {
            self.end_clusters();
        }
        self.cluster().await
    }

    /// Ends the cluster with many orders, to free its memory and disk.
    pub fn end_large_cluster(&mut self) {
        self.large = None;
    }

    /// Ends the shared clusters, for measurements that need the machine for themselves.
    pub fn end_clusters(&mut self) {
        self.large = None;
        self.cluster = None;
    }

    /// The last lines of the services of the shared clusters.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let clusters = self.cluster.iter().chain(&self.large);
        clusters.map(|cluster| cluster.last_lines()).collect()
    }

    /// Puts load on a URL. A failed request fails the run.
    ///
    /// # Errors
    /// When there was no load.
    pub async fn load(&mut self, name: &str, url: &str, load: Load) -> anyhow::Result<Outcome> {
        self.load_all(name, &[url.to_owned()], load).await
    }

    /// Puts load on several replicas at once. A failed request fails the run.
    ///
    /// # Errors
    /// When there was no load.
    pub async fn load_all(&mut self, name: &str, urls: &[String], load: Load) -> anyhow::Result<Outcome> {
        let outcome = wrk::run(self.folder(), urls, load, None).await;
        self.checked(name, outcome)
    }

    /// Puts load on a URL, with this token on each request. A failed request fails the run.
    ///
    /// # Errors
    /// When there was no load.
    pub async fn load_with_token(
        &mut self,
        name: &str,
        url: &str,
        load: Load,
        token: Option<&str>,
    ) -> anyhow::Result<Outcome> {
        let outcome = wrk::run(self.folder(), &[url.to_owned()], load, token).await;
        self.checked(name, outcome)
    }

    fn checked(&mut self, name: &str, outcome: anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
        let outcome = outcome.with_context(|| name.to_owned())?;
        if outcome.errors.total() > 0 {
            let (errors, requests) = (outcome.errors, outcome.requests);
            self.fail(format!("{name}: of {requests} requests, some failed: {errors:?}"));
        }
        if outcome.requests == 0 {
            self.fail(format!("{name}: there was no answer"));
        }
        Ok(outcome)
    }

    /// Places new orders and waits until they are projected, so that the next measurement has the machine for itself. An answer whose order is
    /// missing fails the run.
    ///
    /// # Errors
    /// When there was no load, or a server does not answer.
    pub async fn place_orders(
        &mut self,
        cluster: &Cluster,
        name: &str,
        load: Load,
    ) -> anyhow::Result<Outcome> {
        let from = commits::newest(cluster).await?;
        let url = cluster.url(Service::CreateBuyOrder);
        let outcome = self.load(name, &url, load).await?;
        self.account_for(cluster, name, from, &outcome).await?;
        Ok(outcome)
    }

    /// Does the work with `pgbench` and this many clients, for `duration`, or for a few transactions in a quick run.
    ///
    /// # Errors
    /// When `pgbench` is missing, or a transaction fails.
    pub async fn by_pgbench(
        &self,
        database: &DatabaseAddress,
        work: Work,
        clients: u32,
        duration: Duration,
    ) -> anyhow::Result<pgbench::Outcome> {
        let amount = if self.quick {
            Amount::Transactions(TRANSACTIONS_QUICK)
        } else {
            Amount::For(duration)
        };
        pgbench::run(self.folder(), database, work, clients, amount).await
    }

    /// Waits until the orders after the id `from` are projected. Fails the run if there are fewer orders than successful answers.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn account_for(
        &mut self,
        cluster: &Cluster,
        name: &str,
        from: i64,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        commits::wait_until_projected(cluster).await?;
        let (orders, answered) = (commits::orders_since(cluster, from).await?, outcome.succeeded());
        if orders < answered {
            self.fail(format!(
                "{name}: {answered} orders were answered, and there are {orders}"
            ));
        }
        Ok(())
    }

    /// Records a failure of the run.
    pub fn fail(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("  FAILED: {sentence}");
        self.failures.push(sentence);
    }

    /// Fails the run if a figure that a target needs was not measured.
    pub fn require_all_targets(&mut self) {
        for verdict in targets::judge(&self.figures) {
            if verdict.measured.is_none() {
                self.fail(format!("not measured: {}", verdict.target));
            }
        }
    }

    /// Records what readers of the figures should know.
    pub fn note(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("  note: {sentence}");
        self.notes.push(sentence);
    }

    /// Notes for readers of the figures.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The failures of the run. Empty means success.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

async fn started(cluster: &mut Option<Rc<Cluster>>, options: Options) -> anyhow::Result<Rc<Cluster>> {
    if let Some(cluster) = cluster {
        return Ok(Rc::clone(cluster));
    }
    let started = Rc::new(Cluster::start(options).await?);
    Ok(Rc::clone(cluster.insert(started)))
}
