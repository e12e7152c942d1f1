//! What each process uses: memory, open files and threads have to be back where they were when all is over (I9).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::{Cluster, Service, Vitals};

use crate::violations::{Invariant, Violations};

/// A service may keep this much more than before: buffers that grew, connections in its pool, of which there are at most ten.
const MORE_BYTES: u64 = 24 * 1024 * 1024;
const MORE_FILES: u64 = 16;
const MORE_THREADS: u64 = 4;

/// What is idle is given back within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// What the processes of a cluster used at one moment.
#[derive(Debug)]
pub struct Census(BTreeMap<String, Vitals>);

impl Census {
    /// Takes the figures of every process.
    ///
    /// # Errors
    /// When one does not run.
    pub fn take(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut figures = BTreeMap::new();
        for service in Service::ALL {
            figures.insert(service.name().to_owned(), cluster.vitals(service)?);
            for url in cluster.extras(service) {
                figures.insert(
                    format!("{} at {url}", service.name()),
                    cluster.vitals_extra(&url)?,
                );
            }
        }
        Ok(Self(figures))
    }

    /// Waits until every process uses no more than before; what does not come down is a violation.
    ///
    /// # Errors
    /// When a process does not run.
    pub async fn wait_until_back(&self, cluster: &Cluster, violations: &Violations) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let now = Self::take(cluster)?;
            let excess = self.excess(&now);
            if excess.is_empty() {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                for what in excess {
                    violations.add(Invariant::I9, what);
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn excess(&self, now: &Self) -> Vec<String> {
        let mut excess = Vec::new();
        for (name, before) in &self.0 {
            let Some(after) = now.0.get(name) else {
                excess.push(format!("{name} does not run"));
                continue;
            };
            let within = after.resident_bytes <= before.resident_bytes + MORE_BYTES
                && after.open_files <= before.open_files + MORE_FILES
                && after.threads <= before.threads + MORE_THREADS;
            if !within {
                excess.push(format!("{name} used {before:?} before and {after:?} after"));
            }
        }
        excess
    }
}
