//! What each process uses: memory, open files, connections, threads and tasks have to be back where they were when all is over (I9).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster::{Cluster, Service, Vitals};

use crate::violations::{Invariant, Violations};

/// A service may keep this much more than before: buffers that grew, connections in its pool, of which there are at most ten, and the tasks
/// that serve them.
const MORE_BYTES: u64 = 24 * 1024 * 1024;
const MORE_SOCKETS: u64 = 16;
const MORE_OTHER_FILES: u64 = 4;
const MORE_THREADS: u64 = 4;
const MORE_TASKS: u64 = 16;

/// What is idle is given back within this time.
const LIMIT: Duration = Duration::from_secs(30);

/// What the processes of a cluster used at one moment.
#[derive(Debug)]
pub struct Census(BTreeMap<String, Figures>);

#[derive(Debug)]
struct Figures {
    vitals: Vitals,
    tasks: u64,
}

impl Census {
    /// Takes the figures of every process.
    ///
    /// # Errors
    /// When one does not run.
    pub async fn take(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut figures = BTreeMap::new();
        for service in Service::ALL {
            let first = Figures {
                vitals: cluster.vitals(service)?,
                tasks: tasks(cluster, &cluster.url(service)).await?,
            };
            figures.insert(service.name().to_owned(), first);
            for url in cluster.extras(service) {
                let extra = Figures {
                    vitals: cluster.vitals_extra(&url)?,
                    tasks: tasks(cluster, &url).await?,
                };
                figures.insert(format!("{} at {url}", service.name()), extra);
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

/// I12: a service that had more than this resident at any time since it started would have been killed in its container.
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
        "   {} had {} MiB resident at most, of {}",
        service.name(),
        peak / MIB,
        bytes / MIB
    );
    if peak > bytes {
        violations.add(
            Invariant::I12,
            format!(
                "{} had {} MiB resident, and may have {}",
                service.name(),
                peak / MIB,
                bytes / MIB
            ),
        );
    }
    Ok(())
}

/// Open files that are no connections.
fn other_files(vitals: &Vitals) -> u64 {
    vitals.open_files - vitals.sockets
}

/// Tasks of the async runtime, as the service tells at `/metrics`.
async fn tasks(cluster: &Cluster, url: &str) -> anyhow::Result<u64> {
    let answer = cluster.http().get(format!("{url}/metrics")).send().await?;
    let text = answer.error_for_status()?.text().await?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("tokio_alive_tasks "));
    line.and_then(|count| count.parse().ok())
        .with_context(|| format!("{url}/metrics does not tell the number of tasks"))
}
