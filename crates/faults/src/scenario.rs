//! What is done to a cluster in one run.

use cluster::{Cluster, Options, Service};
use futures_util::future::LocalBoxFuture;

use crate::stage::Stage;

type Play = dyn for<'a> Fn(&'a mut Stage) -> LocalBoxFuture<'a, anyhow::Result<()>> + Send + Sync;

/// A family of faults, played in one cluster one after the other.
pub struct Scenario {
    /// The number of the family, as in the report.
    pub number: u8,
    /// What `--only` is given.
    pub name: String,
    /// How the cluster is started.
    pub options: Options,
    /// Services that run twice.
    pub doubled: &'static [Service],
    /// Whether not a single request may stay without an outcome.
    pub strict: bool,
    /// Whether it measures time, and so must have the machine for itself.
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

    /// Started like this.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// With two processes of each of the services that may be scaled.
    #[must_use]
    pub fn with_replicas(mut self) -> Self {
        self.doubled = &[
            Service::CreateBuyOrder,
            Service::ReadModelSync,
            Service::FetchBuyOrders,
        ];
        self
    }

    /// Not one request that was accepted may fail.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Alone on the machine.
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

    /// Plays it.
    ///
    /// # Errors
    /// When a fault cannot be made, or the cluster does not recover at all.
    pub async fn play(&self, stage: &mut Stage) -> anyhow::Result<()> {
        (self.play)(stage).await
    }
}
