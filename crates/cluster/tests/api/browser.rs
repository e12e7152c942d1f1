//! A real browser, Debian's Chromium, controlled by the WebDriver protocol: JSON requests to its driver.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster::{PortLease, wait_until};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A program in a process group of its own, which is killed when this is dropped. The program also ends if this process is killed.
pub(crate) struct Helper(Child);

impl Helper {
    /// Starts a program of this Debian package.
    pub(crate) fn start(program: &str, arguments: &[String], package: &str) -> anyhow::Result<Self> {
        let helper = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        Ok(Self(helper.with_context(|| {
            format!("{program} is missing: apt-get install {package}")
        })?))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Ok(Some(group)) = i32::try_from(self.0.id()).map(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A browser with one window.
pub(crate) struct Browser {
    http: reqwest::Client,
    session: String,
    _driver: Helper,
}

impl Browser {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let http = cluster::http_client()?;
        let port = PortLease::take()?;
        let driver = Helper::start(
            "chromedriver",
            &[format!("--port={}", port.port())],
            "chromium-driver",
        )?;
        let url = format!("http://127.0.0.1:{}", port.port());
        wait_until("the driver is there", LIMIT, async || {
            Ok(http.get(format!("{url}/status")).send().await.is_ok())
        })
        .await?;
        let arguments = [
            "--headless",
            "--no-sandbox", // which root cannot have
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let created = post(&http, format!("{url}/session"), wanted).await?;
        let id = created["sessionId"].as_str().context("no session")?;
        Ok(Self {
            session: format!("{url}/session/{id}"),
            http,
            _driver: driver,
        })
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) -> anyhow::Result<()> {
        post(&self.http, format!("{}/url", self.session), json!({ "url": url })).await?;
        Ok(())
    }

    /// Runs a script in the page and returns its result.
    pub(crate) async fn run(&self, script: &str) -> anyhow::Result<Value> {
        let body = json!({ "script": script, "args": [] });
        post(&self.http, format!("{}/execute/sync", self.session), body).await
    }

    /// Waits for the first element of a CSS selector, and clicks on it.
    pub(crate) async fn click(&self, selector: &str) -> anyhow::Result<()> {
        let script = format!(
            "const found = document.querySelector({}); if (found) found.click(); return found !== null;",
            json!(selector)
        );
        wait_until(selector, LIMIT, async || Ok(self.run(&script).await? == true)).await
    }

    /// Waits for the first element of a CSS selector, and returns its text.
    pub(crate) async fn text(&self, selector: &str) -> anyhow::Result<String> {
        let script = format!(
            "const found = document.querySelector({}); return found && found.innerText;",
            json!(selector)
        );
        let mut text = String::new();
        wait_until(selector, LIMIT, async || {
            let found = self.run(&script).await?;
            text = found.as_str().unwrap_or_default().to_owned();
            Ok(found.is_string())
        })
        .await?;
        Ok(text)
    }
}

async fn post(http: &reqwest::Client, url: String, body: Value) -> anyhow::Result<Value> {
    let mut answer: Value = http.post(url).json(&body).send().await?.json().await?;
    if answer["value"]["error"].is_string() {
        bail!("the browser: {answer}");
    }
    Ok(answer["value"].take())
}
