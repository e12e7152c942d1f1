//! The real server: `server.js`, run by node.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::support::wait_until;

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../fluent_logger/tests/forward_server" // also for the tests of `cluster`, which include this file
);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    reader: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<Value>>>,
    pub(crate) port: u16,
}

impl Server {
    /// Starts on that port, or on any free one if 0, and waits until it listens.
    pub(crate) async fn start(port: u16) -> anyhow::Result<Self> {
        Self::start_slow(port, 0).await
    }

    /// The same, with a pause before each acknowledgement.
    pub(crate) async fn start_slow(port: u16, ack_pause_ms: u32) -> anyhow::Result<Self> {
        install_packages()?;
        let mut child = Command::new("node")
            .arg(format!("{FOLDER}/server.js"))
            .args([port.to_string(), ack_pause_ms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("this test needs `node` (Debian and Ubuntu: apt-get install nodejs npm)")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let printed = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // A killed server may leave half a line: that event was not acknowledged.
                if let Ok(line) = serde_json::from_str(&line) {
                    printed.lock().unwrap().push(line);
                }
            }
        });
        let mut server = Self {
            child,
            reader: Some(reader),
            lines,
            port,
        };
        wait_until("the forward server listens", || {
            !server.lines.lock().unwrap().is_empty()
        })
        .await?;
        let listening = server.lines.lock().unwrap().remove(0);
        server.port = u16::try_from(listening["listening"].as_u64().context("listening")?)?;
        Ok(server)
    }

    /// What was received so far, in the order of arrival.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    /// As a crash does. All that was printed before is among the events afterwards.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(
                reader.join().is_ok(),
                "the reader of the server's output panicked"
            );
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Tests run side by side, and the packages are to be installed once.
fn install_packages() -> anyhow::Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap();
    // npm writes this file last.
    if Path::new(FOLDER).join("node_modules/.package-lock.json").exists() {
        return Ok(());
    }
    let installed = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(FOLDER)
        .status()
        .context("this test needs `npm` (Debian and Ubuntu: apt-get install nodejs npm)")?;
    ensure!(installed.success(), "`npm ci` failed in {FOLDER}");
    Ok(())
}
