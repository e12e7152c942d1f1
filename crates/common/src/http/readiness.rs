//! Whether a service can do its work: what it cannot work without is asked, for a bounded time, once for all who ask at the same time.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::broker;
use crate::database::Pulse;
use crate::endpoints;
use crate::metrics::{IntGauge, gauge};

/// A dependency that has not answered by then is away.
const LIMIT: Duration = Duration::from_millis(1500);

/// Probes come from several sides; within this time they get the same answer.
const REUSED_FOR: Duration = Duration::from_secs(1);

static READY: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge(
        "service_ready",
        "1 when /readyz answers 200, asked for each scrape; 0 when something that the service cannot work without is away.",
    )
});

/// What a service cannot work without. What it can work without, if less well, does not belong here: the balancer would take every replica
/// away for the fault of one dependency that they share.
#[derive(Default)]
pub struct Readiness {
    needs: Vec<Need>,
    last: Mutex<Option<Known>>,
}

struct Need {
    name: &'static str,
    check: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

struct Known {
    at: Instant,
    away: Arc<Vec<String>>,
}

impl Readiness {
    /// Needs what `check` finds well; its error is for the log.
    #[must_use]
    pub fn needs<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.needs.push(Need {
            name,
            check: Box::new(move || Box::pin(check())),
        });
        self
    }

    /// Needs a database, which is asked on a connection of its own: one that has no connection left for a burst of requests is busy, not
    /// away.
    #[must_use]
    pub fn needs_database(self, name: &'static str, endpoint: &endpoints::Database) -> Self {
        let pulse = Arc::new(Pulse::of(endpoint));
        self.needs(name, move || {
            let pulse = Arc::clone(&pulse);
            async move { pulse.feel().await.map_err(|error| error.to_string()) }
        })
    }

    /// Needs the connection to the broker that has this name.
    #[must_use]
    pub fn needs_broker(self, connection: &'static str) -> Self {
        self.needs("broker", move || {
            let connected = broker::connected(connection);
            std::future::ready(connected.then_some(()).ok_or_else(|| "not connected".to_owned()))
        })
    }

    /// What is away, in words that a client may read; nothing when the service is ready.
    pub(super) async fn away(&self) -> Arc<Vec<String>> {
        // Who comes while the dependencies are asked waits for that answer: probes do not pile up.
        let mut last = self.last.lock().await;
        if let Some(known) = &*last
            && known.at.elapsed() < REUSED_FOR
        {
            return Arc::clone(&known.away);
        }
        let failures: Vec<(&str, String)> = join_all(self.needs.iter().map(Need::ask))
            .await
            .into_iter()
            .flatten()
            .collect();
        let away: Arc<Vec<String>> = Arc::new(
            failures
                .iter()
                .map(|(name, _)| format!("{name} is away"))
                .collect(),
        );
        self.report(last.as_ref(), &failures);
        *last = Some(Known {
            at: Instant::now(),
            away: Arc::clone(&away),
        });
        away
    }

    /// An event where it changed, so that an outage is two lines and not one for each probe.
    fn report(&self, last: Option<&Known>, failures: &[(&str, String)]) {
        let was_ready = last.is_none_or(|known| known.away.is_empty());
        READY.set(failures.is_empty().into());
        if was_ready && !failures.is_empty() {
            let reasons: Vec<String> = failures
                .iter()
                .map(|(name, reason)| format!("{name}: {reason}"))
                .collect();
            tracing::warn!(event = "service_not_ready", info = reasons.join("; "));
        } else if !was_ready && failures.is_empty() {
            tracing::info!(event = "service_ready");
        }
    }
}

impl Need {
    async fn ask(&self) -> Option<(&'static str, String)> {
        match timeout(LIMIT, (self.check)()).await {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some((self.name, reason)),
            Err(_) => Some((self.name, format!("no answer within {LIMIT:?}"))),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs: Vec<&str> = self.needs.iter().map(|need| need.name).collect();
        formatter.debug_tuple("Readiness").field(&needs).finish()
    }
}
