//! What the groups share: one cluster, a folder, and the figures.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, DatabaseAddress, Options, Service, wait_until};

use crate::commits;
use crate::figures::Figures;
use crate::pgbench::{self, Amount, Work};
use crate::spent;
use crate::targets;
use crate::wrk::{self, Load, Outcome};

/// How long the projection may take to have caught up with a load.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// Of `pgbench` in a quick run, in all.
const TRANSACTIONS_QUICK: u32 = 64;

/// A run of the benchmarks.
#[derive(Debug)]
pub struct Bench {
    /// Whether it is a short one, which shows that everything works rather than how fast.
    pub quick: bool,
    /// What was measured so far.
    pub figures: Figures,
    failures: Vec<String>,
    notes: Vec<String>,
    folder: tempfile::TempDir,
    // In the order of their end: the large one may be on the servers of the other.
    large: Option<Rc<Cluster>>,
    cluster: Option<Rc<Cluster>>,
}

impl Bench {
    /// A run that has measured nothing yet.
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

    /// How long one measurement takes.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 5 })
    }

    /// A folder for scripts and logs, which is deleted in the end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How the cluster of a benchmark is started: all services once, on servers of its own that are as durable as in production.
    fn options() -> Options {
        let options = Options::default()
            .with_durable_servers()
            .with_brief_output()
            // Room for the indexes of 10 M orders, whose pages are asked for at random; the harness' default is for tests.
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

    /// The cluster that groups share, started for the first of them.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        started(&mut self.cluster, Self::options()).await
    }

    /// The cluster whose databases groups fill with as many orders as they need, started for the first of them: see [`crate::history`]. It
    /// has servers of its own, except in a quick run, where it is on those of the other cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn large_cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        let options = if self.quick {
            Self::options().on_servers_of(&*self.cluster().await?)
        } else {
            Self::options()
        };
        started(&mut self.large, options).await
    }

    /// The cluster that groups share from here on, in which nothing was measured yet. A quick run goes on with the one there is: to start a
    /// cluster takes longer than most of its measurements.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn fresh_cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        if !self.quick {
            self.end_clusters();
        }
        self.cluster().await
    }

    /// Ends the cluster of the many orders, for its memory and its disk.
    pub fn end_large_cluster(&mut self) {
        self.large = None;
    }

    /// Ends the shared clusters, for what needs the machine for itself.
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

    /// Puts load on a URL. Requests that fail fail the run.
    ///
    /// # Errors
    /// When there was no load.
    pub async fn load(&mut self, name: &str, url: &str, load: Load) -> anyhow::Result<Outcome> {
        self.load_all(name, &[url.to_owned()], load).await
    }

    /// Puts load on several replicas at once. Requests that fail fail the run.
    ///
    /// # Errors
    /// When there was no load.
    pub async fn load_all(&mut self, name: &str, urls: &[String], load: Load) -> anyhow::Result<Outcome> {
        let outcome = wrk::run(self.folder(), urls, load)
            .await
            .with_context(|| name.to_owned())?;
        if outcome.errors.total() > 0 {
            let (errors, requests) = (outcome.errors, outcome.requests);
            self.fail(format!("{name}: of {requests} requests, some failed: {errors:?}"));
        }
        if outcome.requests == 0 {
            self.fail(format!("{name}: no answer came"));
        }
        Ok(outcome)
    }

    /// Has new orders placed, and waits until they are projected: what is measured next has the machine for itself. An answer without an
    /// order fails the run.
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

    /// Has the bare server do the work with so many clients: for so long, or in a quick run until it has shown that it can.
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

    /// Waits until the orders that follow the order `from` are projected; fails the run where fewer are there than were answered.
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
        quiet(cluster).await?;
        let (orders, answered) = (commits::orders_since(cluster, from).await?, outcome.succeeded());
        if orders < answered {
            self.fail(format!(
                "{name}: {answered} orders were answered, and there are {orders}"
            ));
        }
        Ok(())
    }

    /// Writes down what makes the run a failure.
    pub fn fail(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("  FAILED: {sentence}");
        self.failures.push(sentence);
    }

    /// Fails the run where a figure that a target needs was not measured.
    pub fn require_all_targets(&mut self) {
        for verdict in targets::judge(&self.figures) {
            if verdict.measured.is_none() {
                self.fail(format!("not measured: {}", verdict.target));
            }
        }
    }

    /// Writes down what readers of the figures should know.
    pub fn note(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("  note: {sentence}");
        self.notes.push(sentence);
    }

    /// What readers of the figures should know.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What makes the run a failure, if anything.
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

/// Stands in the text of each statement of ours that is made while statements are counted.
pub const OUR_STATEMENT: &str = "/* bench */";

/// Waits until every order is relayed and projected: what is measured next then has the machine for itself.
///
/// # Errors
/// When it takes longer than a backlog of ours can take.
pub async fn quiet(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("every order is projected", QUIET_LIMIT, async || {
        let relayed: bool = sqlx::query_scalar("SELECT /* bench */ NOT EXISTS (SELECT FROM outbox)")
            .fetch_one(cluster.write_model())
            .await?;
        let accepted: Option<i64> = sqlx::query_scalar("SELECT /* bench */ max(id) FROM buy_order")
            .fetch_one(cluster.write_model())
            .await?;
        let projected: Option<i64> =
            sqlx::query_scalar("SELECT /* bench */ max(id) FROM buy_order_read_model")
                .fetch_one(cluster.read_model())
                .await?;
        Ok(relayed && accepted == projected)
    })
    .await
}
