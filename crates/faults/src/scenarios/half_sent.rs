//! Clients that send the beginning of a request and then wait, so that the service has to hold it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::stage::Stage;

/// Half the memory of a container. The other half is for complete requests.
pub(super) const BUDGET_BYTES: u64 = 64 * 1024 * 1024;

const CLIENTS: usize = 3_500;
/// This many clients send more than fits.
const ENOUGH: usize = 2_000;
/// This many connect at once, and the next ones after [`BETWEEN`].
const TOGETHER: usize = 20;
const BETWEEN: Duration = Duration::from_millis(10);
/// Generous, for a busy machine.
const COME_WITHIN: Duration = Duration::from_secs(30);
/// A rejected client connects again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(3);

/// The interval and timeout of the container's health check (docker-compose.yml).
const CHECK_EVERY: Duration = Duration::from_secs(2);
const CHECK_LIMIT: Duration = Duration::from_secs(3);

/// The head of `PUT /buy_order` without the headers of its body's length, and without the end.
pub(super) fn head_of_an_order(cluster: &Cluster) -> String {
    let mut head =
        "PUT /buy_order HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".to_owned();
    for (name, value) in &cluster.authorization() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    head
}

/// A request with a body of the maximum size, without the end of the body.
pub(super) fn body(cluster: &Cluster) -> Vec<u8> {
    const LENGTH: usize = 16_384;
    const SENT: usize = 16_000;
    let mut request = format!("{}content-length: {LENGTH}\r\n\r\n", head_of_an_order(cluster)).into_bytes();
    request.resize(request.len() + SENT, b' ');
    request
}

/// Headers that never end, and are still within the limit.
pub(super) fn headers() -> Vec<u8> {
    const SENT: usize = 31 * 1024;
    let mut request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    request.resize(SENT, b'x');
    request
}

/// Lets many clients send this to `create_buy_order` and wait. Meanwhile the health check of its container must succeed.
pub(super) async fn wait_with(
    cluster: &Cluster,
    request: Vec<u8>,
    disturbed: Duration,
) -> anyhow::Result<()> {
    let address = cluster.url(Service::CreateBuyOrder);
    let address = address.trim_start_matches("http://").parse()?;
    let began = Instant::now();
    let crowd = Crowd::start(address, request)?;
    while began.elapsed() < disturbed || (crowd.connected() < ENOUGH && began.elapsed() < COME_WITHIN) {
        let asked = Instant::now();
        let ended = cluster
            .admin(Service::CreateBuyOrder, &["healthcheck"], "")
            .await?;
        let took = asked.elapsed();
        ensure!(
            ended.code == Some(0) && took < CHECK_LIMIT,
            "the container's health check ended with {:?} after {took:.1?}: {}",
            ended.code,
            ended.stderr
        );
        Stage::last(CHECK_EVERY.saturating_sub(took)).await;
    }
    let connected = crowd.connected();
    ensure!(connected > ENOUGH, "only {connected} clients could connect");
    Ok(())
}

/// The clients, on a thread of their own, so that they do not delay the other clients of this process. They end when it is dropped.
struct Crowd {
    connected: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn start(address: SocketAddr, request: Vec<u8>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the clients")?;
        let connected = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connected);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = connect_all(address, request.into(), &counted) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            connected,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connect_all(address: SocketAddr, request: Arc<[u8]>, connected: &Arc<AtomicUsize>) {
    let mut clients = JoinSet::new();
    for number in 1..=CLIENTS {
        let (request, connected) = (Arc::clone(&request), Arc::clone(connected));
        clients.spawn(async move {
            loop {
                // It may end refused, shed or answered.
                let _ = send_and_wait(address, &request, &connected).await;
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
        if number % TOGETHER == 0 {
            tokio::time::sleep(BETWEEN).await;
        }
    }
    clients.join_all().await;
}

async fn send_and_wait(address: SocketAddr, request: &[u8], connected: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    connected.fetch_add(1, Ordering::Relaxed);
    stream.write_all(request).await?;
    let mut answer = [0; 512];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}
