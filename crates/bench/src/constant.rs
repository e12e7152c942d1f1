//! A server that always gives the same answer, recorded from another server: it shows what HTTP alone costs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::get;
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};

/// The recorded answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    headers: Vec<(String, String)>,
    body: String,
}

/// Such a server, in a process of its own like a service. It ends when dropped.
#[derive(Debug)]
pub struct Constant {
    url: String,
    child: Child,
}

impl Constant {
    /// Sends this request and starts a server that repeats the answer.
    ///
    /// # Errors
    /// When the request fails, or the process does not start.
    pub async fn start(folder: &Path, request: RequestBuilder) -> anyhow::Result<Self> {
        let response = request.send().await?.error_for_status()?;
        // The HTTP library writes these itself.
        let automatic = ["content-length", "date", "connection", "transfer-encoding"];
        let headers = response.headers().iter();
        let headers = headers
            .filter(|(name, _)| !automatic.contains(&name.as_str()))
            .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
            .collect::<anyhow::Result<_>>()?;
        let body = response.text().await?;
        let file = folder.join("constant.json");
        std::fs::write(&file, serde_json::to_vec(&Answer { headers, body })?)?;

        let mut child = Command::new(std::env::current_exe()?)
            .arg("constant")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the server with a constant answer")?;
        let mut port = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut port)?;
        ensure!(
            !port.is_empty(),
            "the server with a constant answer did not start"
        );
        Ok(Self {
            url: format!("http://127.0.0.1:{}/", port.trim()),
            child,
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Constant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server: serves the answer in the file, prints its port, and ends when standard input closes.
///
/// # Errors
/// When the file holds no answer, or no port can be had.
pub async fn serve(file: &Path) -> anyhow::Result<()> {
    let Answer { headers, body } = serde_json::from_slice(&std::fs::read(file)?)?;
    let headers = headers
        .iter()
        .map(|(name, value)| Ok((HeaderName::try_from(name)?, HeaderValue::try_from(value)?)))
        .collect::<anyhow::Result<HeaderMap>>()?;
    let answer = (headers, Bytes::from(body));
    let router = Router::new().route("/", get(async move || answer.clone()));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    let (closed, mut input_closed) = tokio::sync::mpsc::channel::<()>(1);
    // On a plain thread, because the runtime would wait for a blocking read at shutdown.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        drop(closed);
    });
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served.context("could not serve"),
        _ = input_closed.recv() => Ok(()),
    }
}
