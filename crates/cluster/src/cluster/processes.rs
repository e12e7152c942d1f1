//! Freezing, limiting and observing the processes of services.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::ensure;

use super::{Cluster, ProcessId};
use crate::process::{Vitals, clock_variables, locked};
use crate::replica::Replica;
use crate::service::Service;

const PERIOD: Duration = Duration::from_millis(100);

impl Cluster {
    /// The URLs of the extra processes of a service, including stopped ones.
    #[must_use]
    pub fn extras(&self, service: Service) -> Vec<String> {
        let extras = locked(&self.extras);
        let of_service = extras.iter().filter(|replica| replica.service() == service);
        of_service.map(|replica| replica.url()).collect()
    }

    /// Limits how many files and sockets the running process of a service may have open. Its next process has the default limit.
    ///
    /// # Errors
    /// When it does not run.
    pub fn limit_open_files(&self, service: Service, max: u64) -> anyhow::Result<()> {
        self.replica(service)?.process()?.limit_open_files(max)
    }

    /// Stops a service for this percentage of each 100 ms, until the returned value is dropped. [`Cluster::pause`] and [`Cluster::resume`]
    /// work meanwhile. A restarted process is starved, too.
    ///
    /// # Errors
    /// When it does not run, or `percent` is over 100.
    pub fn starve(&self, service: Service, percent: u8) -> anyhow::Result<Starved> {
        ensure!(percent <= 100, "{percent} is not a percentage");
        let replica = self.replica(service)?;
        replica.process()?.still_runs()?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || starve(&replica, percent, &stopped));
        Ok(Starved {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Shifts the wall clock of a service by this offset (in the syntax of libfaketime: `+1h`, `-90s`) from its next start on. The monotonic
    /// clock, used for timeouts and measurements, stays correct.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn set_clock(&self, service: Service, offset: &str) -> anyhow::Result<()> {
        let variables = clock_variables(offset)?;
        locked(&self.clocks).insert(service, variables);
        Ok(())
    }

    /// Resets the clock of a service from its next start on.
    pub fn reset_clock(&self, service: Service) {
        locked(&self.clocks).remove(&service);
    }

    /// The resources that a running process uses.
    ///
    /// # Errors
    /// When it does not run.
    pub fn vitals<'a>(&self, process: impl Into<ProcessId<'a>>) -> anyhow::Result<Vitals> {
        self.replica(process)?.process()?.vitals()
    }
}

/// A service that gets little CPU time until this is dropped.
#[derive(Debug)]
pub struct Starved {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Starved {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn starve(replica: &Arc<Replica>, percent: u8, stopped: &mpsc::Receiver<()>) {
    let frozen = PERIOD * percent.into() / 100;
    let continues_after = |pause| stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout);
    loop {
        let process = replica.process();
        if let Ok(process) = &process {
            let _ = process.hold(true);
        }
        let whole = continues_after(frozen);
        if let Ok(process) = &process {
            let _ = process.hold(false);
        }
        if !whole || !continues_after(PERIOD.saturating_sub(frozen)) {
            return;
        }
    }
}
