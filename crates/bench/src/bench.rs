//! What the groups share: one cluster, a folder, and the figures.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, wait_until};

use crate::commits;
use crate::figures::Figures;
use crate::wrk::{self, Load, Outcome};

/// How long the projection may take to have caught up with a load.
const QUIET_LIMIT: Duration = Duration::from_secs(120);

/// A run of the benchmarks.
#[derive(Debug)]
pub struct Bench {
    /// Whether it is a short one, which shows that everything works rather than how fast.
    pub quick: bool,
    /// Whether the time of builds is measured, too.
    pub build_times: bool,
    /// What was measured so far.
    pub figures: Figures,
    failures: Vec<String>,
    notes: Vec<String>,
    folder: tempfile::TempDir,
    cluster: Option<Rc<Cluster>>,
    large: Option<Rc<Cluster>>,
}

impl Bench {
    /// A run that has measured nothing yet.
    ///
    /// # Errors
    /// When there is no temporary folder to be had.
    pub fn new(quick: bool) -> anyhow::Result<Self> {
        Ok(Self {
            quick,
            build_times: false,
            figures: Figures::default(),
            failures: Vec::new(),
            notes: Vec::new(),
            folder: tempfile::tempdir().context("could not make a temporary folder")?,
            cluster: None,
            large: None,
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
    #[must_use]
    pub fn options() -> Options {
        Options::default()
            .with_durable_servers()
            .with_brief_output()
            // What a small production server has; the harness' default is for tests.
            .with_database_setting("shared_buffers", "512MB")
            .with_database_setting("max_wal_size", "4GB")
            .with_database_setting(commits::PARAMETER.0, commits::PARAMETER.1)
    }

    /// The cluster that groups share, started for the first of them.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        if let Some(cluster) = &self.cluster {
            return Ok(Rc::clone(cluster));
        }
        let cluster = Rc::new(Cluster::start(Self::options()).await?);
        self.cluster = Some(Rc::clone(&cluster));
        Ok(cluster)
    }

    /// The cluster whose databases groups fill with as many orders as they need, started for the first of them: see [`crate::history`].
    ///
    /// # Errors
    /// When it does not start.
    pub async fn large_cluster(&mut self) -> anyhow::Result<Rc<Cluster>> {
        if let Some(cluster) = &self.large {
            return Ok(Rc::clone(cluster));
        }
        let cluster = Rc::new(Cluster::start(Self::options()).await?);
        self.large = Some(Rc::clone(&cluster));
        Ok(cluster)
    }

    /// Ends the shared clusters, for a group that needs the machine for one of its own, or a fresh one.
    pub fn end_cluster(&mut self) {
        self.cluster = None;
        self.large = None;
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
        let outcome = wrk::run_at_once(self.folder(), urls, load)
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

    /// Writes down what makes the run a failure.
    pub fn fail(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        println!("  FAILED: {sentence}");
        self.failures.push(sentence);
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
