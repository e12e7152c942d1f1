//! Signals that end the program.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request to shut down: Ctrl-C, SIGTERM, or the terminal was closed.
pub(crate) struct ShutdownSignal([Signal; 3]);

impl ShutdownSignal {
    /// From now on these signals do not end the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let arm = |kind| signal(kind).context("could not listen for signals");
        Ok(Self([
            arm(SignalKind::terminate())?,
            arm(SignalKind::interrupt())?,
            arm(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next request.
    pub(crate) async fn wait(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
