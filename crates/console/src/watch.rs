//! Asks all services each second, and keeps what the last five minutes were like.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Peer;
use crate::peers::Service;
use crate::per_service::PerService;
use crate::rates::Rates;
use crate::state::{Point, State};

/// A service that hangs may make it two.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Five minutes.
const MAX_POINTS: usize = 300;

/// What is published each second.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// The points before the state, oldest first.
    pub(crate) history: VecDeque<Point>,
    /// As JSON; `None` before the first look.
    pub(crate) state: Option<String>,
}

/// What is published now.
pub(crate) type Latest = watch::Receiver<Arc<Published>>;

/// Asks, judges and publishes until the process is asked to stop.
pub(crate) async fn ask_for_ever(
    peers: PerService<Peer>,
    extra_ca: Option<PathBuf>,
    publish: watch::Sender<Arc<Published>>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut services = peers.map(|peer| Service::new(peer, extra_ca.clone()));
    services.read_model_sync = services.read_model_sync.with_dead_letters();
    let watch = async {
        let (mut rates, mut points) = (Rates::default(), VecDeque::new());
        loop {
            let begun = Instant::now();
            let read = services.each_mut().map(Service::ask).join().await;
            let replicas = read.values().into_iter().flatten();
            let shown = replicas.filter_map(|replica| {
                let metrics = replica.answers.as_ref()?.metrics.as_ref()?;
                Some((replica.address, metrics))
            });
            rates.observe(begun, shown);
            let state = State::of(&read, &rates, OffsetDateTime::now_utc());
            publish.send_replace(Arc::new(Published {
                history: points.clone(),
                state: Some(serde_json::to_string(&state)?),
            }));
            points.push_back(state.point);
            while points.len() > MAX_POINTS {
                points.pop_front();
            }
            tokio::time::sleep_until((begun + ASK_EVERY).into()).await;
        }
    };
    stopping.run_until_cancelled(watch).await.unwrap_or(Ok(()))
}
