//! Family 7: misbehaving clients. The others must not be affected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluster::Service;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::half_sent;
use crate::ledger::{Entry, Outcome};
use crate::load::{Shared, new_order};
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::Invariant;
use crate::vitals::fits_container;

const DISTURBED: Duration = Duration::from_secs(10);

/// The number of misbehaving clients at once, of those that send something.
const BAD_CLIENTS: usize = 50;

/// The number of idle connections to each of two services.
const IDLE_EACH: usize = 1_000;

const HUNG_UP: &str = "the client hung up";

/// Other clients may wait three times as long as undisturbed ones. Below this the scheduler of a small machine dominates.
const NOISE: Duration = Duration::from_millis(25);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new(7, "clients", |stage| Box::pin(bad_clients(stage))).alone()]
}

async fn bad_clients(stage: &mut Stage) -> anyhow::Result<()> {
    // First the undisturbed latency is measured.
    Stage::last(DISTURBED).await;

    // These come first, because the peak of memory since the start is checked.
    let cluster = Arc::clone(&stage.cluster);
    for (kind, request) in [
        ("clients: 3,500 with half a body", half_sent::body(&stage.cluster)),
        ("clients: 3,500 with unfinished headers", half_sent::headers()),
    ] {
        let waiting = half_sent::wait_with(&cluster, request, DISTURBED);
        disturb(stage, kind, waiting).await?;
        fits_container(
            &cluster,
            Service::CreateBuyOrder,
            half_sent::BUDGET_BYTES,
            &stage.shared.violations,
        )?;
    }

    let shared = Arc::clone(&stage.shared);
    let random = stage.random.fork();
    let hanging_up = async { hang_up(&shared, random).await };
    disturb(stage, "clients: hang up after 0 to 50 ms", hanging_up).await?;

    let services = [Service::CreateBuyOrder, Service::FetchBuyOrders];
    let addresses = services.map(|service| {
        stage
            .cluster
            .url(service)
            .trim_start_matches("http://")
            .to_owned()
    });
    disturb(
        stage,
        "clients: slow headers",
        slowly(
            &addresses[1],
            "GET /buy_orders HTTP/1.1\r\nhost: localhost\r\nx: ",
        ),
    )
    .await?;
    let head = half_sent::head_of_an_order(&stage.cluster);
    let body = format!("{head}content-length: 100\r\n\r\n");
    disturb(stage, "clients: slow bodies", slowly(&addresses[0], &body)).await?;
    let endless = endlessly(&addresses[0], &head);
    disturb(stage, "clients: endless chunked bodies", endless).await?;
    disturb(stage, "clients: 2,000 idle connections", idle(&addresses)).await
}

/// Runs misbehaving clients, and compares the latency of the others with the undisturbed one.
async fn disturb(
    stage: &mut Stage,
    kind: &str,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let index = stage.faults.len();
    stage.fault(kind, "", work).await?;
    let entries = stage.shared.ledger.entries();
    let of = |fault: Option<usize>| entries.iter().filter(move |entry| entry.fault == fault);
    for entry in of(Some(index)) {
        if matches!(&entry.outcome, Outcome::Unknown(why) if why != HUNG_UP) {
            let what = format!("{kind}: another client's order was not accepted: {entry:?}");
            stage.shared.violations.add(Invariant::I0, what);
        }
    }
    let undisturbed = p99(of(None))?;
    let disturbed = p99(of(Some(index)))?;
    println!("   {kind}: p99 {disturbed:.1?}, undisturbed {undisturbed:.1?}");
    if disturbed > undisturbed.max(NOISE) * 3 {
        let what = format!("{kind}: p99 of the others is {disturbed:?}, undisturbed {undisturbed:?}");
        stage.shared.violations.add(Invariant::I11, what);
    }
    Ok(())
}

fn p99<'a>(entries: impl Iterator<Item = &'a Entry>) -> anyhow::Result<Duration> {
    const ENOUGH: usize = 200;
    let answered = entries.filter(|entry| !matches!(entry.outcome, Outcome::Unknown(_)));
    let mut took: Vec<Duration> = answered.map(|entry| entry.took).collect();
    ensure!(
        took.len() >= ENOUGH,
        "{} answers are too few for a percentile",
        took.len()
    );
    took.sort_unstable();
    Ok(took[took.len() * 99 / 100])
}

async fn hang_up(shared: &Shared, mut random: fastrand::Rng) -> anyhow::Result<()> {
    let began = Instant::now();
    let clients = (0..BAD_CLIENTS / 5).map(|_| random.fork()).collect::<Vec<_>>();
    join_all(clients.into_iter().map(async |mut random| {
        while began.elapsed() < DISTURBED {
            let identity = new_order(&mut random);
            let limit = Duration::from_millis(random.u64(0..50));
            let sent = shared.ledger.sent();
            let answered = timeout(limit, shared.client.place(&identity, &identity.amount(), 0)).await;
            let (outcome, wrong) = answered.unwrap_or((Outcome::Unknown(HUNG_UP.to_owned()), None));
            if let Some(what) = wrong {
                shared.violations.add(Invariant::I0, what);
            }
            shared.ledger.record(identity, &sent, outcome);
            Stage::last(Duration::from_millis(20)).await;
        }
    }))
    .await;
    Ok(())
}

/// Sends the beginning of a request, and then one byte every 500 ms.
async fn slowly(address: &str, beginning: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let connected = join_all((0..BAD_CLIENTS).map(async |_| {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(beginning.as_bytes()).await?;
        while began.elapsed() < DISTURBED && stream.write_all(b"1").await.is_ok() {
            Stage::last(Duration::from_millis(500)).await;
        }
        anyhow::Ok(())
    }))
    .await;
    connected
        .into_iter()
        .collect::<anyhow::Result<()>>()
        .context("a slow client could not connect")
}

/// Sends chunk after chunk, and starts again when the service cuts it off.
async fn endlessly(address: &str, head: &str) -> anyhow::Result<()> {
    const CHUNK: &[u8] = b"10\r\n0123456789abcdef\r\n";
    let beginning = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let began = Instant::now();
    let refused = join_all((0..BAD_CLIENTS / 5).map(async |_| {
        let mut refused = 0_usize;
        while began.elapsed() < DISTURBED {
            let mut stream = TcpStream::connect(address).await?;
            let mut sent = stream.write_all(beginning.as_bytes()).await;
            while began.elapsed() < DISTURBED && sent.is_ok() {
                sent = stream.write_all(&CHUNK.repeat(64)).await;
                Stage::last(Duration::from_millis(5)).await;
            }
            let mut answer = [0; 12];
            let answered = timeout(Duration::from_secs(1), stream.read_exact(&mut answer)).await;
            refused += usize::from(matches!(answered, Ok(Ok(_))) || sent.is_err());
        }
        anyhow::Ok(refused)
    }))
    .await;
    let refused: usize = refused.into_iter().sum::<anyhow::Result<usize>>()?;
    ensure!(refused > 0, "no endless body was cut off");
    Ok(())
}

async fn idle(addresses: &[String; 2]) -> anyhow::Result<()> {
    let mut idle = Vec::new();
    for address in addresses {
        for _ in 0..IDLE_EACH {
            idle.push(
                TcpStream::connect(address)
                    .await
                    .context("an idle client could not connect")?,
            );
        }
    }
    Stage::last(DISTURBED).await;
    Ok(())
}
