//! The connections to the broker that a supervisor keeps up, as `/metrics` and `/readyz` see them, by their names in the management UI.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use lapin::ConnectionStatus;

use super::{Error, measure};
use crate::metrics::{GaugeVec, read_gauges};

type Links = BTreeMap<String, Link>;

#[derive(Default)]
struct Link {
    /// Nothing until it succeeds.
    status: Option<ConnectionStatus>,
    /// The broker's words where it holds something of our name that is declared otherwise.
    declared_otherwise: Option<String>,
}

static LINKS: Mutex<Links> = Mutex::new(BTreeMap::new());

static GAUGES: LazyLock<()> = LazyLock::new(|| {
    show(
        "broker_connected",
        "1 while the connection to the broker is up.",
        |link| link.holds(ConnectionStatus::connected),
    );
    show(
        "broker_blocked",
        "1 while the broker takes no messages on this connection, for want of memory or disk.",
        |link| link.holds(ConnectionStatus::blocked),
    );
    show(
        "broker_declared_otherwise",
        "1 while the broker holds an exchange or a queue of our name that is declared otherwise, which somebody has to remove.",
        |link| link.declared_otherwise.is_some(),
    );
});

impl Link {
    fn holds(&self, question: fn(&ConnectionStatus) -> bool) -> bool {
        self.status.as_ref().is_some_and(question)
    }
}

/// A supervisor begins to connect: until it succeeds the connection is shown as down.
pub(super) fn wanted(name: &str) {
    LazyLock::force(&GAUGES);
    measure::show();
    with(|links| links.entry(name.to_owned()).or_default().status = None);
}

/// It has connected. The state is lapin's own, so that nobody has to say when it ends.
pub(super) fn up(name: &str, status: ConnectionStatus) {
    let link = Link {
        status: Some(status),
        declared_otherwise: None,
    };
    with(|links| links.insert(name.to_owned(), link));
}

/// It could not connect, or could not go on.
pub(super) fn failed(name: &str, error: &Error) {
    let declared_otherwise = match error {
        Error::DeclaredOtherwise { reply } => Some(reply.clone()),
        _ => None,
    };
    with(|links| links.entry(name.to_owned()).or_default().declared_otherwise = declared_otherwise);
}

/// Whether the connection of this name is up, as far as is known.
///
/// # Errors
/// Why it is not, where that is not just that the broker is away.
pub fn state(name: &str) -> Result<(), String> {
    with(|links| match links.get(name) {
        Some(link) if link.holds(ConnectionStatus::connected) => Ok(()),
        Some(Link {
            declared_otherwise: Some(reply),
            ..
        }) => Err(format!("declared otherwise: {reply}")),
        _ => Err("not connected".to_owned()),
    })
}

fn show(name: &str, help: &str, question: fn(&Link) -> bool) {
    let read = move |gauges: &GaugeVec| {
        with(|links| {
            for (connection, link) in links.iter() {
                gauges
                    .with_label_values(&[connection])
                    .set(u8::from(question(link)).into());
            }
        });
    };
    read_gauges(name, help, &["connection"], read);
}

fn with<T>(work: impl FnOnce(&mut Links) -> T) -> T {
    work(&mut LINKS.lock().unwrap_or_else(PoisonError::into_inner))
}
