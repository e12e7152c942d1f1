//! A service with a given number of processes.

use anyhow::Context as _;
use cluster::{Cluster, Service};
use futures_util::future::try_join_all;

pub(super) struct Scale<'a> {
    cluster: &'a Cluster,
    service: Service,
    /// URLs of the processes besides the first.
    extras: Vec<String>,
}

impl<'a> Scale<'a> {
    /// A service with one running process.
    pub(super) fn of(cluster: &'a Cluster, service: Service) -> Self {
        Self {
            cluster,
            service,
            extras: Vec::new(),
        }
    }

    /// Starts and stops processes until this many run, at least one, and all are healthy.
    pub(super) async fn to(&mut self, replicas: usize) -> anyhow::Result<()> {
        while self.extras.len() + 1 > replicas.max(1) {
            let url = self.extras.pop().context("no extra process")?;
            self.cluster.stop(&url).await?;
        }
        self.add(replicas).await
    }

    /// Stops all processes.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.to(1).await?;
        self.cluster.stop(self.service).await?;
        Ok(())
    }

    /// Starts this many processes at once. None may run.
    pub(super) async fn start(&mut self, replicas: usize) -> anyhow::Result<()> {
        tokio::try_join!(self.cluster.start_service(self.service), self.add(replicas))?;
        Ok(())
    }

    /// The URLs of all processes.
    pub(super) fn urls(&self) -> Vec<String> {
        let mut urls = vec![self.cluster.url(self.service)];
        urls.extend(self.extras.iter().cloned());
        urls
    }

    async fn add(&mut self, replicas: usize) -> anyhow::Result<()> {
        let missing = replicas.saturating_sub(self.extras.len() + 1);
        let started = (0..missing).map(|_| self.cluster.start_extra(self.service));
        self.extras.extend(try_join_all(started).await?);
        Ok(())
    }
}
