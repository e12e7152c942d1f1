//! `rabbitmqctl` for a private node.

use std::time::Duration;

use rustix::process::Signal;

use super::{RabbitMq, find};

/// It starts an Erlang node of its own.
const LIMIT: Duration = Duration::from_secs(60);

impl RabbitMq {
    /// Runs `rabbitmqctl` with these arguments on this node, to its successful end.
    pub(crate) async fn control(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut program = self.node.clone().arguments(arguments);
        program.name = format!("rabbitmqctl {}", arguments.join(" "));
        program.path = find(
            "rabbitmqctl",
            &[
                "/usr/lib/rabbitmq/bin/rabbitmqctl",
                "/opt/rabbitmq/sbin/rabbitmqctl",
            ],
        )?;
        program.end_with = Signal::KILL;
        program.complete(LIMIT).await
    }
}
