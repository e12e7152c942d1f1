//! What `/metrics` and `/readyz` say about the broker: the supervised connections by their names in the management UI, and the messages
//! that were published.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use lapin::ConnectionStatus;

use super::Error;
use crate::metrics::{GaugeVec, IntCounter, counters, read_gauges};

#[derive(Default)]
struct Connection {
    /// Nothing until it is connected. lapin keeps it up to date.
    status: Option<ConnectionStatus>,
    /// The broker's words when something of our name is declared with other options.
    declared_otherwise: Option<String>,
}

type Connections = BTreeMap<&'static str, Connection>;

static CONNECTIONS: Mutex<Connections> = Mutex::new(BTreeMap::new());

static GAUGES: LazyLock<()> = LazyLock::new(|| {
    show(
        "broker_connected",
        "1 while the connection to the broker is up.",
        |connection| connection.is(ConnectionStatus::connected),
    );
    show(
        "broker_blocked",
        "1 while the broker blocks this connection because its memory or disk is low.",
        |connection| connection.is(ConnectionStatus::blocked),
    );
    show(
        "broker_declared_otherwise",
        "1 while an exchange or a queue of our name exists with other options. An operator has to remove it.",
        |connection| connection.declared_otherwise.is_some(),
    );
});

/// Published messages by outcome.
pub(super) static PUBLISHES: LazyLock<Publishes> = LazyLock::new(|| {
    let by_outcome = counters(
        "broker_publishes_total",
        "Published messages by outcome: confirmed by the broker, returned (no queue is bound), failed.",
        &["outcome"],
    );
    Publishes {
        confirmed: by_outcome.with_label_values(&["confirmed"]),
        returned: by_outcome.with_label_values(&["returned"]),
        failed: by_outcome.with_label_values(&["failed"]),
    }
});

pub(super) struct Publishes {
    pub(super) confirmed: IntCounter,
    pub(super) returned: IntCounter,
    pub(super) failed: IntCounter,
}

impl Connection {
    fn is(&self, question: fn(&ConnectionStatus) -> bool) -> bool {
        self.status.as_ref().is_some_and(question)
    }
}

/// A supervisor begins to connect: until it succeeds, the connection is shown as down. All metrics are shown from now on.
pub(super) fn connecting(name: &'static str) {
    LazyLock::force(&GAUGES);
    LazyLock::force(&PUBLISHES);
    with(|connections| connections.entry(name).or_default().status = None);
}

pub(super) fn connected(name: &'static str, status: ConnectionStatus) {
    let connection = Connection {
        status: Some(status),
        declared_otherwise: None,
    };
    with(|connections| connections.insert(name, connection));
}

/// The connection could not be made, or was lost.
pub(super) fn failed(name: &'static str, error: &Error) {
    let declared_otherwise = match error {
        Error::DeclaredOtherwise { reply } => Some(reply.clone()),
        _ => None,
    };
    with(|connections| connections.entry(name).or_default().declared_otherwise = declared_otherwise);
}

/// Whether the connection of this name is up, as far as is known.
///
/// # Errors
/// Why it is not: an operator may have to remove what is declared otherwise.
pub fn state(name: &str) -> Result<(), String> {
    with(|connections| match connections.get(name) {
        Some(connection) if connection.is(ConnectionStatus::connected) => Ok(()),
        Some(Connection {
            declared_otherwise: Some(reply),
            ..
        }) => Err(format!("declared otherwise: {reply}")),
        _ => Err("not connected".to_owned()),
    })
}

fn show(name: &str, help: &str, question: fn(&Connection) -> bool) {
    let read = move |gauges: &GaugeVec| {
        with(|connections| {
            for (name, connection) in connections.iter() {
                gauges
                    .with_label_values(&[name])
                    .set(u8::from(question(connection)).into());
            }
        });
    };
    read_gauges(name, help, &["connection"], read);
}

fn with<T>(work: impl FnOnce(&mut Connections) -> T) -> T {
    work(&mut CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner))
}
