//! A scenario: what is done to a cluster in one run.

use cluster::{Cluster, Options, Service};
use futures_util::future::LocalBoxFuture;

use crate::stage::Stage;

type Play = dyn for<'a> Fn(&'a mut Stage) -> LocalBoxFuture<'a, anyhow::Result<()>> + Send + Sync;

/// Faults of one family, injected into one cluster one after the other.
pub struct Scenario {
    /// The number of the family, as in the report.
    pub number: u8,
    /// The name for `--only`.
    pub name: String,
    /// How the cluster is started.
    pub options: Options,
    /// Services that run with two processes.
    pub doubled: &'static [Service],
    /// Whether every request must get an outcome.
    pub strict: bool,
    /// Whether it measures time, and so needs the machine for itself.
    pub alone: bool,
    play: Box<Play>,
}

impl Scenario {
    /// A scenario with one process of each service and shared servers.
    pub fn new(
        number: u8,
        name: impl Into<String>,
        play: impl for<'a> Fn(&'a mut Stage) -> LocalBoxFuture<'a, anyhow::Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            number,
            name: name.into(),
            options: Options::default(),
            doubled: &[],
            strict: false,
            alone: false,
            play: Box::new(play),
        }
    }

    /// Starts the cluster with these options.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Runs two processes of each service that can be scaled.
    #[must_use]
    pub fn with_replicas(mut self) -> Self {
        self.doubled = &[
            Service::CreateBuyOrder,
            Service::ReadModelSync,
            Service::FetchBuyOrders,
        ];
        self
    }

    /// Requires that no accepted request fails.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Runs alone on the machine.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts its cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&self) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(self.options.clone()).await?;
        for service in self.doubled {
            cluster.start_extra(*service).await?;
        }
        Ok(cluster)
    }

    /// Runs it.
    ///
    /// # Errors
    /// When a fault cannot be made, or the cluster does not recover at all.
    pub async fn play(&self, stage: &mut Stage) -> anyhow::Result<()> {
        (self.play)(stage).await
    }
}
