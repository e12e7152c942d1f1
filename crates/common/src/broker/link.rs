//! The connections to the broker that a supervisor keeps up, as `/metrics` and `/readyz` see them, by their names in the management UI.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use lapin::ConnectionStatus;

use super::measure;
use crate::metrics::{GaugeVec, read_gauges};

type Links = BTreeMap<String, Option<ConnectionStatus>>;

static LINKS: Mutex<Links> = Mutex::new(BTreeMap::new());

static GAUGES: LazyLock<()> = LazyLock::new(|| {
    show(
        "broker_connected",
        "1 while the connection to the broker is up.",
        ConnectionStatus::connected,
    );
    show(
        "broker_blocked",
        "1 while the broker takes no messages on this connection, for want of memory or disk.",
        ConnectionStatus::blocked,
    );
});

/// A supervisor begins to connect: until it succeeds the connection is shown as down.
pub(super) fn wanted(name: &str) {
    LazyLock::force(&GAUGES);
    measure::show();
    with(|links| links.insert(name.to_owned(), None));
}

/// It has connected. The state is lapin's own, so that nobody has to say when it ends.
pub(super) fn up(name: &str, status: ConnectionStatus) {
    with(|links| links.insert(name.to_owned(), Some(status)));
}

/// Whether the connection of this name is up, as far as is known.
#[must_use]
pub fn connected(name: &str) -> bool {
    with(|links| holds(links.get(name), ConnectionStatus::connected))
}

fn show(name: &str, help: &str, question: fn(&ConnectionStatus) -> bool) {
    let read = move |gauges: &GaugeVec| {
        with(|links| {
            for (connection, status) in links.iter() {
                let holds = holds(Some(status), question);
                gauges
                    .with_label_values(&[connection])
                    .set(u8::from(holds).into());
            }
        });
    };
    read_gauges(name, help, &["connection"], read);
}

fn holds(status: Option<&Option<ConnectionStatus>>, question: fn(&ConnectionStatus) -> bool) -> bool {
    status.and_then(Option::as_ref).is_some_and(question)
}

fn with<T>(work: impl FnOnce(&mut Links) -> T) -> T {
    work(&mut LINKS.lock().unwrap_or_else(PoisonError::into_inner))
}
