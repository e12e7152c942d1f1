//! What can be done to the processes of services beyond starting and ending them.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::{Cluster, Replica};
use crate::process::{Vitals, clock_set_off, locked};
use crate::service::Service;

const PERIOD: Duration = Duration::from_millis(100);

impl Cluster {
    /// The URLs of the extra processes of a service, also of those that were stopped.
    #[must_use]
    pub fn extras(&self, service: Service) -> Vec<String> {
        let extras = locked(&self.extras);
        let of_service = extras.iter().filter(|replica| replica.service() == service);
        of_service.map(|replica| replica.url()).collect()
    }

    /// Freezes an extra process by SIGSTOP.
    ///
    /// # Errors
    /// When there is none at that URL, or it does not run.
    pub fn pause_extra(&self, url: &str) -> anyhow::Result<()> {
        self.extra(url)?.process()?.signal(Signal::STOP)
    }

    /// Lets a frozen extra process go on.
    ///
    /// # Errors
    /// When there is none at that URL, or it does not run.
    pub fn resume_extra(&self, url: &str) -> anyhow::Result<()> {
        self.extra(url)?.process()?.signal(Signal::CONT)
    }

    /// Starts an extra process (again) on its port without waiting for anything.
    ///
    /// # Errors
    /// When there is none at that URL, or it cannot be started.
    pub fn launch_extra(&self, url: &str) -> anyhow::Result<()> {
        let replica = self.extra(url)?;
        replica.start(self.environment_at(replica.service(), replica.port()))
    }

    /// Stops an extra process by SIGTERM, if it runs, starts it again on its port and waits until it is healthy.
    ///
    /// # Errors
    /// When there is none at that URL, it does not end, or it does not become healthy.
    pub async fn restart_extra(&self, url: &str) -> anyhow::Result<()> {
        let replica = self.extra(url)?;
        replica.process()?.stop().await?;
        self.launch_extra(url)?;
        replica.healthy(&self.http).await
    }

    /// Limits how many files and sockets the running process of a service may have open. Its next start has the usual limit.
    ///
    /// # Errors
    /// When it does not run.
    pub fn limit_open_files(&self, service: Service, most: u64) -> anyhow::Result<()> {
        self.replica(service)?.process()?.limit_open_files(most)
    }

    /// Stops a service for this percentage of each 100 ms, until the answer is dropped. [`Cluster::pause`] and [`Cluster::resume`] work
    /// meanwhile; a process that is started again is starved like the one before.
    ///
    /// # Errors
    /// When it does not run, or `percent` is over 100.
    pub fn starve(&self, service: Service, percent: u8) -> anyhow::Result<Starved> {
        ensure!(percent <= 100, "{percent} is no percentage");
        let replica = self.replica(service)?;
        replica.process()?.still_runs()?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || starve(&replica, percent, &stopped));
        Ok(Starved {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Sets the wall clock of a service off by this much (as libfaketime reads it: `+1h`, `-90s`) from its next start on. The monotonic
    /// clock, by which it waits and measures, stays right.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn set_clock(&self, service: Service, offset: &str) -> anyhow::Result<()> {
        let variables = clock_set_off(offset)?;
        locked(&self.clocks).insert(service, variables);
        Ok(())
    }

    /// Sets the clock of a service right from its next start on.
    pub fn reset_clock(&self, service: Service) {
        locked(&self.clocks).remove(&service);
    }

    /// What the running process of a service uses.
    ///
    /// # Errors
    /// When it does not run.
    pub fn vitals(&self, service: Service) -> anyhow::Result<Vitals> {
        self.replica(service)?.process()?.vitals()
    }

    /// What an extra process uses.
    ///
    /// # Errors
    /// When there is none at that URL, or it does not run.
    pub fn vitals_extra(&self, url: &str) -> anyhow::Result<Vitals> {
        self.extra(url)?.process()?.vitals()
    }
}

/// A service that gets little time, until this is dropped.
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
    let goes_on = |pause| stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout);
    loop {
        let process = replica.process();
        if let Ok(process) = &process {
            let _ = process.hold(true);
        }
        let whole = goes_on(frozen);
        if let Ok(process) = &process {
            let _ = process.hold(false);
        }
        if !whole || !goes_on(PERIOD.saturating_sub(frozen)) {
            return;
        }
    }
}
