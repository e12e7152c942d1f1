//! Published messages, counted.

use std::sync::LazyLock;

use super::publisher::Verdict;
use super::{Error, Outgoing};
use crate::metrics::{IntCounter, counters};

static PUBLISHES: LazyLock<Publishes> = LazyLock::new(|| {
    let by_outcome = counters(
        "broker_publishes_total",
        "Messages that were published: confirmed by the broker, returned because no queue takes them, or failed.",
        &["outcome"],
    );
    Publishes {
        confirmed: by_outcome.with_label_values(&["confirmed"]),
        returned: by_outcome.with_label_values(&["returned"]),
        failed: by_outcome.with_label_values(&["failed"]),
    }
});

struct Publishes {
    confirmed: IntCounter,
    returned: IntCounter,
    failed: IntCounter,
}

/// Shows the counters before anything is published.
pub(super) fn show() {
    LazyLock::force(&PUBLISHES);
}

pub(super) fn count(window: &[Outgoing], published: &Result<Vec<Verdict>, Error>) {
    let Ok(verdicts) = published else {
        return PUBLISHES
            .failed
            .inc_by(u64::try_from(window.len()).unwrap_or(u64::MAX));
    };
    for verdict in verdicts {
        match verdict {
            Verdict::Confirmed => PUBLISHES.confirmed.inc(),
            Verdict::NotConfirmed(_) if verdict.is_returned() => PUBLISHES.returned.inc(),
            Verdict::NotConfirmed(_) => PUBLISHES.failed.inc(),
        }
    }
}
