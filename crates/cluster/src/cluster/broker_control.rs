//! Faults of the broker that it can be asked for (own servers only).

use std::time::Duration;

use anyhow::Context as _;

use super::Cluster;
use crate::wait::wait_until;

/// The node looks at its memory every second, and at its disk every ten seconds at most.
const ALARM_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Stops RabbitMQ within its node: connections end and none are taken, while the node's process goes on.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn broker_stop_app(&self) -> anyhow::Result<()> {
        self.rabbitmqctl(&["stop_app"]).await
    }

    /// Starts RabbitMQ within its node again, and waits until it answers.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn broker_start_app(&self) -> anyhow::Result<()> {
        self.rabbitmqctl(&["start_app"]).await?;
        self.servers()?.rabbitmq.answers().await
    }

    /// Raises or ends the alarm that memory is short: while it is in force the broker takes nothing from publishers.
    ///
    /// # Errors
    /// When the servers are shared, or the alarm is not in force, or not over, within 30 s.
    pub async fn broker_memory_alarm(&self, on: bool) -> anyhow::Result<()> {
        let limit = if on { "0.00001" } else { "0.4" };
        self.rabbitmqctl(&["set_vm_memory_high_watermark", limit]).await?;
        self.alarm("memory", on).await
    }

    /// Raises or ends the alarm that disk space is short: while it is in force the broker takes nothing from publishers.
    ///
    /// # Errors
    /// When the servers are shared, or the alarm is not in force, or not over, within 30 s.
    pub async fn broker_disk_alarm(&self, on: bool) -> anyhow::Result<()> {
        let limit = if on { "1000000GB" } else { "50MB" };
        self.rabbitmqctl(&["set_disk_free_limit", limit]).await?;
        self.alarm("disk space", on).await
    }

    /// Closes all connections to the cluster's virtual host, as an administrator would.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn close_broker_connections(&self) -> anyhow::Result<()> {
        // Without a virtual host it means the default one, where none of ours is.
        let vhost = &self.queue().vhost;
        self.rabbitmqctl(&["close_all_connections", "--vhost", vhost, "closed by a test"])
            .await
    }

    async fn alarm(&self, resource: &str, on: bool) -> anyhow::Result<()> {
        let what = format!("the {resource} alarm is {}", if on { "in force" } else { "over" });
        wait_until(&what, ALARM_WITHIN, async || {
            let question = self.http.get(self.queue().api("health/checks/local-alarms"));
            let broker = self.queue();
            let question = question.basic_auth(&broker.user, Some(&broker.password));
            let answer: serde_json::Value = question.send().await?.json().await?;
            let status = answer["status"].as_str().context("no status")?;
            let alarms = answer["alarms"].as_array().into_iter().flatten();
            let raised = status != "ok" && alarms.clone().any(|alarm| alarm["resource"] == resource);
            Ok(raised == on)
        })
        .await
    }
}
