//! The resources of each process. At the end memory, open files, connections, threads and tasks must be about where they were (I9).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::{Cluster, Service, Vitals};

use crate::metrics;
use crate::violations::{Invariant, Violations};

/// How much more than before a service may keep: grown buffers, the connections of its pool, at most ten, and the tasks that serve them.
const MORE_BYTES: u64 = 24 * 1024 * 1024;
const MORE_SOCKETS: u64 = 16;
const MORE_OTHER_FILES: u64 = 4;
const MORE_THREADS: u64 = 4;
const MORE_TASKS: u64 = 16;

/// The tasks of the async runtime.
const TASKS: &str = "tokio_alive_tasks";

/// Idle resources are released within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// The resources of all processes of a cluster at one moment.
#[derive(Debug)]
pub struct Census(BTreeMap<String, Resources>);

#[derive(Debug)]
struct Resources {
    vitals: Vitals,
    tasks: u64,
}

impl Census {
    /// Reads the resources of every process.
    ///
    /// # Errors
    /// When one does not run.
    pub async fn take(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut resources = BTreeMap::new();
        for service in Service::OF_ORDERS {
            let first = Resources {
                vitals: cluster.vitals(service)?,
                tasks: metrics::value(cluster, &cluster.url(service), TASKS).await?,
            };
            resources.insert(service.name().to_owned(), first);
            for url in cluster.extras(service) {
                let extra = Resources {
                    vitals: cluster.vitals(&url)?,
                    tasks: metrics::value(cluster, &url, TASKS).await?,
                };
                resources.insert(format!("{} at {url}", service.name()), extra);
            }
        }
        Ok(Self(resources))
    }

    /// Waits until every process uses about as much as before. One that still uses more after the time limit is a violation.
    ///
    /// # Errors
    /// When a process does not run.
    pub async fn wait_until_back(&self, cluster: &Cluster, violations: &Violations) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let excess = self.excess(&Self::take(cluster).await?);
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
            let within = after.vitals.resident_bytes <= before.vitals.resident_bytes + MORE_BYTES
                && after.vitals.sockets <= before.vitals.sockets + MORE_SOCKETS
                && other_files(&after.vitals) <= other_files(&before.vitals) + MORE_OTHER_FILES
                && after.vitals.threads <= before.vitals.threads + MORE_THREADS
                && after.tasks <= before.tasks + MORE_TASKS;
            if !within {
                excess.push(format!("{name} used {before:?} before and {after:?} after"));
            }
        }
        excess
    }
}

/// Checks I12: a service whose resident memory was ever above `bytes` would have been killed in its container.
///
/// # Errors
/// When it does not run.
pub fn fits_container(
    cluster: &Cluster,
    service: Service,
    bytes: u64,
    violations: &Violations,
) -> anyhow::Result<()> {
    const MIB: u64 = 1024 * 1024;
    let peak = cluster.vitals(service)?.peak_resident_bytes;
    println!(
        "   {}: at most {} MiB resident, limit {} MiB",
        service.name(),
        peak / MIB,
        bytes / MIB
    );
    if peak > bytes {
        violations.add(
            Invariant::I12,
            format!(
                "{}: {} MiB resident, limit {} MiB",
                service.name(),
                peak / MIB,
                bytes / MIB
            ),
        );
    }
    Ok(())
}

/// Open files other than sockets.
fn other_files(vitals: &Vitals) -> u64 {
    vitals.open_files - vitals.sockets
}
