//! Whether a service can do its work: it checks what it cannot work without.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::metrics::{IntGauge, gauge};

/// A dependency that has not answered by then counts as away.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1500);

/// Several probes may ask at the same time. For this long they get the same answer.
const REUSED_FOR: Duration = Duration::from_secs(1);

static READY: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge(
        "service_ready",
        "1 if /readyz answers 200, checked at each scrape; 0 if a dependency is away.",
    )
});

/// What a service cannot work without. Do not add a dependency that the service can do without, even if it works less well then: the load
/// balancer would take all replicas away when that one dependency, which they share, is away.
#[derive(Default)]
pub struct Readiness {
    needs: Vec<Need>,
    last: Mutex<Option<Answer>>,
}

struct Need {
    name: &'static str,
    check: Box<dyn Fn() -> BoxFuture<'static, Result<(), Unready>> + Send + Sync>,
}

/// Why a dependency cannot be used.
#[derive(Debug)]
pub struct Unready {
    /// For clients: a predicate such as "is away".
    pub reason: String,
    /// For the log.
    pub info: String,
}

/// A dependency that is away; the text is for the log.
impl From<String> for Unready {
    fn from(info: String) -> Self {
        Self {
            reason: "is away".to_owned(),
            info,
        }
    }
}

struct Answer {
    at: Instant,
    /// A sentence for each dependency that cannot be used.
    faults: Arc<Vec<String>>,
}

impl Readiness {
    /// Adds a dependency. It can be used while `check` succeeds.
    #[must_use]
    pub fn needs<F, E>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Unready>,
    {
        let check = move || -> BoxFuture<'static, Result<(), Unready>> {
            let checked = check();
            Box::pin(async move { checked.await.map_err(Into::into) })
        };
        self.needs.push(Need {
            name,
            check: Box::new(check),
        });
        self
    }

    /// Which dependencies cannot be used, in sentences for clients. Empty if the service is ready.
    pub(crate) async fn faults(&self) -> Arc<Vec<String>> {
        // The lock is held during the checks, so that concurrent probes share one round of them.
        let mut last = self.last.lock().await;
        if let Some(answer) = &*last
            && answer.at.elapsed() < REUSED_FOR
        {
            return Arc::clone(&answer.faults);
        }
        let checks = join_all(self.needs.iter().map(Need::check)).await;
        let failures: Vec<(&str, Unready)> = checks.into_iter().flatten().collect();
        let was_ready = last.as_ref().is_none_or(|answer| answer.faults.is_empty());
        report(was_ready, &failures);
        let sentence = |(name, unready): &(&str, Unready)| format!("{name} {}", unready.reason);
        let faults = Arc::new(failures.iter().map(sentence).collect());
        *last = Some(Answer {
            at: Instant::now(),
            faults: Arc::clone(&faults),
        });
        faults
    }
}

/// Logs changes only, so that an outage is two lines and not one line for each probe.
fn report(was_ready: bool, failures: &[(&str, Unready)]) {
    READY.set(failures.is_empty().into());
    if was_ready && !failures.is_empty() {
        let info = |(name, unready): &(&str, Unready)| format!("{name}: {}", unready.info);
        let infos: Vec<String> = failures.iter().map(info).collect();
        tracing::warn!(event = "service_not_ready", info = infos.join("; "));
    } else if !was_ready && failures.is_empty() {
        tracing::info!(event = "service_ready");
    }
}

impl Need {
    async fn check(&self) -> Option<(&'static str, Unready)> {
        let checked = timeout(CHECK_TIMEOUT, (self.check)()).await;
        let no_answer = |_| Err(format!("no answer within {CHECK_TIMEOUT:?}").into());
        let unready = checked.unwrap_or_else(no_answer).err()?;
        Some((self.name, unready))
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs: Vec<&str> = self.needs.iter().map(|need| need.name).collect();
        formatter.debug_tuple("Readiness").field(&needs).finish()
    }
}
