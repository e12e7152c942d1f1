//! Whether a service can do its work: it checks what it cannot work without.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt as _, TryFutureExt as _};
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
    /// When the dependencies were checked last, and a sentence for each that could not be used.
    last: Mutex<Option<(Instant, Vec<String>)>>,
}

struct Need {
    name: &'static str,
    check: Box<dyn Fn() -> BoxFuture<'static, Result<(), Unready>> + Send + Sync>,
}

/// Why a dependency cannot be used.
#[derive(Debug)]
pub struct Unready {
    /// For clients: a predicate such as "is away".
    pub reason: &'static str,
    /// For the log.
    pub info: String,
}

/// A dependency that is away; the text is for the log.
impl From<String> for Unready {
    fn from(info: String) -> Self {
        Self {
            reason: "is away",
            info,
        }
    }
}

impl Readiness {
    /// Adds a dependency. It can be used while `check` succeeds.
    #[must_use]
    pub fn needs<F, E>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Unready>,
    {
        let check = Box::new(move || check().err_into().boxed());
        self.needs.push(Need { name, check });
        self
    }

    /// Which dependencies cannot be used, in sentences for clients. Empty if the service is ready.
    pub(crate) async fn faults(&self) -> Vec<String> {
        // The lock is held during the checks, so that concurrent probes share one round of them.
        let mut last = self.last.lock().await;
        if let Some((at, faults)) = &*last
            && at.elapsed() < REUSED_FOR
        {
            return faults.clone();
        }
        let check = |need: &Need| timeout(CHECK_TIMEOUT, (need.check)());
        let checks = join_all(self.needs.iter().map(check)).await;
        let no_answer = |_| Err(format!("no answer within {CHECK_TIMEOUT:?}").into());
        let (mut faults, mut infos) = (Vec::new(), Vec::new());
        for (Need { name, .. }, checked) in self.needs.iter().zip(checks) {
            if let Err(Unready { reason, info }) = checked.unwrap_or_else(no_answer) {
                faults.push(format!("{name} {reason}"));
                infos.push(format!("{name}: {info}"));
            }
        }
        let was_ready = last.as_ref().is_none_or(|(_, faults)| faults.is_empty());
        report(was_ready, &infos);
        *last = Some((Instant::now(), faults.clone()));
        faults
    }
}

/// Logs changes only, so that an outage is two lines and not one line for each probe.
fn report(was_ready: bool, failures: &[String]) {
    READY.set(failures.is_empty().into());
    if was_ready && !failures.is_empty() {
        tracing::warn!(event = "service_not_ready", info = failures.join("; "));
    } else if !was_ready && failures.is_empty() {
        tracing::info!(event = "service_ready");
    }
}
