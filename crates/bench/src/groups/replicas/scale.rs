//! A service with as many processes as are wanted.

use anyhow::Context as _;
use cluster::{Cluster, Service};
use futures_util::future::try_join_all;

pub(super) struct Scale<'a> {
    cluster: &'a Cluster,
    service: Service,
    /// All processes besides the first.
    extras: Vec<String>,
}

impl<'a> Scale<'a> {
    /// A service of which one process runs.
    pub(super) fn of(cluster: &'a Cluster, service: Service) -> Self {
        Self {
            cluster,
            service,
            extras: Vec::new(),
        }
    }

    /// Starts and stops processes until so many run, at least one, all of them healthy.
    pub(super) async fn to(&mut self, replicas: usize) -> anyhow::Result<()> {
        while self.extras.len() + 1 > replicas.max(1) {
            let url = self.extras.pop().context("no extra process")?;
            self.cluster.stop_extra(&url).await?;
        }
        self.add(replicas).await
    }

    /// Stops all of them.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.to(1).await?;
        self.cluster.stop(self.service).await?;
        Ok(())
    }

    /// Starts so many at once, none of which runs.
    pub(super) async fn start(&mut self, replicas: usize) -> anyhow::Result<()> {
        tokio::try_join!(self.cluster.start_service(self.service), self.add(replicas))?;
        Ok(())
    }

    /// Where they answer.
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
