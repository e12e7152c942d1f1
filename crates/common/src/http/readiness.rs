//! Whether a service can do its work: what it cannot work without is asked, for a bounded time, once for all who ask at the same time.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::broker;
use crate::database::Pool;
use crate::logging::chain;
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
    check: Box<dyn Fn() -> BoxFuture<'static, Result<(), Fault>> + Send + Sync>,
}

/// What is wrong with a dependency.
struct Fault {
    /// In words that a client may read: "is away".
    told: String,
    /// For the log.
    logged: String,
}

impl Fault {
    fn away(logged: String) -> Self {
        Self {
            told: "is away".to_owned(),
            logged,
        }
    }
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
            check: Box::new(move || {
                let checked = check();
                Box::pin(async move { checked.await.map_err(Fault::away) })
            }),
        });
        self
    }

    /// Needs a database that can be read. It is asked on one of the connections that requests use: what they meet is what this says.
    #[must_use]
    pub fn needs_database(self, name: &'static str, pool: &Pool) -> Self {
        self.needs_pool(name, pool, false)
    }

    /// Needs a database that can be written to, which a standby cannot.
    #[must_use]
    pub fn needs_writable_database(self, name: &'static str, pool: &Pool) -> Self {
        self.needs_pool(name, pool, true)
    }

    fn needs_pool(mut self, name: &'static str, pool: &Pool, writes: bool) -> Self {
        let pool = pool.clone();
        self.needs.push(Need {
            name,
            check: Box::new(move || {
                let pool = pool.clone();
                Box::pin(async move {
                    let usable = pool.check(writes).await;
                    usable.map_err(|reason| Fault {
                        told: reason.to_string(),
                        logged: chain(&reason),
                    })
                })
            }),
        });
        self
    }

    /// Needs the connection to the broker that has this name.
    #[must_use]
    pub fn needs_broker(self, connection: &'static str) -> Self {
        self.needs("broker", move || std::future::ready(broker::state(connection)))
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
        let failures: Vec<(&str, Fault)> = join_all(self.needs.iter().map(Need::ask))
            .await
            .into_iter()
            .flatten()
            .collect();
        let away: Arc<Vec<String>> = Arc::new(
            failures
                .iter()
                .map(|(name, fault)| format!("{name} {}", fault.told))
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
    fn report(&self, last: Option<&Known>, failures: &[(&str, Fault)]) {
        let was_ready = last.is_none_or(|known| known.away.is_empty());
        READY.set(failures.is_empty().into());
        if was_ready && !failures.is_empty() {
            let reasons: Vec<String> = failures
                .iter()
                .map(|(name, fault)| format!("{name}: {}", fault.logged))
                .collect();
            tracing::warn!(event = "service_not_ready", info = reasons.join("; "));
        } else if !was_ready && failures.is_empty() {
            tracing::info!(event = "service_ready");
        }
    }
}

impl Need {
    async fn ask(&self) -> Option<(&'static str, Fault)> {
        match timeout(LIMIT, (self.check)()).await {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some((self.name, fault)),
            Err(_) => Some((self.name, Fault::away(format!("no answer within {LIMIT:?}")))),
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs: Vec<&str> = self.needs.iter().map(|need| need.name).collect();
        formatter.debug_tuple("Readiness").field(&needs).finish()
    }
}
