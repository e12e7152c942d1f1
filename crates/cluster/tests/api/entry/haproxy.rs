//! HAProxy with the configuration of compose and the limits of `.env`, on other ports; and clients with addresses of their own.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{PortLease, wait_until};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

const LIMIT: Duration = Duration::from_secs(30);

/// A client that is not served within this is not served.
const PATIENCE: Duration = Duration::from_secs(5);

/// HAProxy, until this is dropped.
pub(crate) struct Entry {
    process: Child,
    folder: tempfile::TempDir,
    pub(crate) orders: String,
    pub(crate) pages: String,
    pub(crate) health: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Entry {
    /// In front of these two services. `settings` replace those of `.env`.
    pub(crate) async fn start(orders: &str, pages: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let leases: Vec<PortLease> = (0..4).map(|_| PortLease::take()).collect::<Result<_, _>>()?;
        let [to_orders, to_pages, health, socket] = [0, 1, 2, 3].map(|index: usize| leases[index].port());
        let ours = format!("{ROOT}/docker/entry/haproxy.cfg");
        let mut text = fs::read_to_string(&ours)?;
        for (here, there) in [
            ("bind :8777", format!("bind 127.0.0.1:{to_orders}")),
            ("bind :8778", format!("bind 127.0.0.1:{to_pages}")),
            ("bind :8776", format!("bind 127.0.0.1:{health}")),
            ("127.0.0.1:8775", format!("127.0.0.1:{socket}")),
            // Only Docker resolves the names of compose.
            (
                "init-addr none resolvers docker",
                "init-addr last,libc,none".to_owned(),
            ),
        ] {
            ensure!(text.contains(here), "{here} is not in {ours}");
            text = text.replace(here, &there);
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text)?;
        let process = Command::new(if fs::exists("/usr/sbin/haproxy")? {
            "/usr/sbin/haproxy"
        } else {
            "haproxy"
        })
        .envs(address("CREATE_BUY_ORDER", orders)?)
        .envs(address("FETCH_BUY_ORDERS", pages)?)
        .envs(settings_of_env()?)
        .envs(settings.iter().copied())
        .args(["-db", "-f"])
        .arg(&file)
        .stderr(Stdio::null())
        .stdout(fs::File::create(folder.path().join("log"))?)
        .spawn()
        .context("haproxy is missing: scripts/ensure_servers.sh --for-tests")?;
        let url = |port| format!("http://127.0.0.1:{port}");
        let entry = Self {
            process,
            folder,
            orders: url(to_orders),
            pages: url(to_pages),
            health: url(health),
        };
        let http = cluster::http_client()?;
        wait_until("entry answers", LIMIT, async || {
            Ok(http.get(&entry.health).send().await.is_ok())
        })
        .await?;
        Ok(entry)
    }

    /// What HAProxy has written to standard output.
    pub(crate) fn log_text(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    /// The lines of the log, each of which must be a JSON object.
    pub(crate) fn log(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.log_text()?;
        let lines = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(line.is_object(), "{line}");
            Ok(line)
        });
        lines.collect()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// The variables with the host and the port of a service.
fn address(service: &str, url: &str) -> anyhow::Result<[(String, String); 2]> {
    let address = url.trim_start_matches("http://").rsplit_once(':');
    let (host, port) = address.context("no port")?;
    Ok([("HOST", host), ("PORT", port)].map(|(part, value)| (format!("{service}_{part}"), value.to_owned())))
}

/// `ENTRY_…` of `.env`.
fn settings_of_env() -> anyhow::Result<Vec<(String, String)>> {
    let text = fs::read_to_string(format!("{ROOT}/.env"))?;
    let lines = text.lines().filter(|line| line.starts_with("ENTRY_"));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let settings: Vec<_> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    ensure!(settings.len() == 4, "{settings:?}");
    Ok(settings)
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(given, _)| given.eq_ignore_ascii_case(name));
        Some(found?.1)
    }

    /// Checks the form that all answers have, and returns `detail`.
    pub(crate) fn detail(&self) -> anyhow::Result<String> {
        let id = self.header("x-request-id").context("no id")?;
        ensure!(uuid::Uuid::try_parse(id).is_ok(), "{self:?}");
        ensure!(
            self.header("content-type") == Some("application/json"),
            "{self:?}"
        );
        let body: Value = serde_json::from_str(&self.body)?;
        Ok(body["detail"].as_str().context("no detail")?.to_owned())
    }
}

/// A client with this address. All addresses of 127.0.0.0/8 are this machine's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub(crate) IpAddr);

impl Client {
    pub(crate) fn new(third: u8, fourth: u8) -> Self {
        Self(IpAddr::from([127, 0, third, fourth]))
    }

    pub(crate) async fn connect(self, url: &str) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.0, 0))?;
        let address = url.trim_start_matches("http://").parse()?;
        Ok(timeout(PATIENCE, socket.connect(address)).await??)
    }

    /// Sends a request with these header lines over a connection of its own, and returns the answer, which must come soon.
    pub(crate) async fn ask(self, url: &str, path: &str, headers: &str) -> anyhow::Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: entry\r\nConnection: close\r\n{headers}\r\n");
        self.send(url, &head).await
    }

    /// Sends these bytes, and returns the answer, which must come soon.
    pub(crate) async fn send(self, url: &str, bytes: &str) -> anyhow::Result<Answer> {
        let answered = async {
            let mut stream = self.connect(url).await?;
            stream.write_all(bytes.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Answer::parse(&text)
        };
        let answer = timeout(PATIENCE, answered).await;
        answer.with_context(|| format!("{self:?} got no answer at {url} within {PATIENCE:?}"))?
    }

    pub(crate) async fn status(self, url: &str, path: &str) -> anyhow::Result<u16> {
        Ok(self.ask(url, path, "").await?.status)
    }
}

/// Lets this process have thousands of connections.
pub(crate) fn raise_limit_of_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A service that answers with the request's head. Its address; it ends with the test.
pub(crate) async fn echo() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await? == 0 {
                        return Ok(());
                    }
                }
                let length = head.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nX-Request-Id: a\"b\\c\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{head}"
                );
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    Ok(address.to_string())
}
