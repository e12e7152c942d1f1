//! Faults of the broker that its own tools can make (own servers only).

use std::time::Duration;

use anyhow::Context as _;

use super::Cluster;
use crate::wait::wait_until;

/// The node checks its memory every second, and its disk at least every ten seconds.
const ALARM_LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Stops the RabbitMQ application within its node: connections end and new ones are refused, while the node's process runs.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn broker_stop_app(&self) -> anyhow::Result<()> {
        self.rabbitmqctl(&["stop_app"]).await
    }

    /// Starts the RabbitMQ application within its node, and waits until it answers.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn broker_start_app(&self) -> anyhow::Result<()> {
        self.rabbitmqctl(&["start_app"]).await?;
        self.servers()?.rabbitmq.wait_until_it_answers().await
    }

    /// Raises or clears the memory alarm, which blocks publishers.
    ///
    /// # Errors
    /// When the servers are shared, or the alarm is not raised or cleared within 30 s.
    pub async fn broker_memory_alarm(&self, on: bool) -> anyhow::Result<()> {
        let limit = if on { "0.00001" } else { "0.4" };
        self.rabbitmqctl(&["set_vm_memory_high_watermark", limit]).await?;
        self.wait_for_alarm("memory", on).await
    }

    /// Raises or clears the disk alarm, which blocks publishers.
    ///
    /// # Errors
    /// When the servers are shared, or the alarm is not raised or cleared within 30 s.
    pub async fn broker_disk_alarm(&self, on: bool) -> anyhow::Result<()> {
        let limit = if on { "1000000GB" } else { "50MB" };
        self.rabbitmqctl(&["set_disk_free_limit", limit]).await?;
        self.wait_for_alarm("disk space", on).await
    }

    /// Closes all connections to the cluster's virtual host, as an administrator would.
    ///
    /// # Errors
    /// When the servers are shared, or `rabbitmqctl` fails.
    pub async fn close_broker_connections(&self) -> anyhow::Result<()> {
        // The default is the virtual host `/`, which has no connections of ours.
        let vhost = &self.queue().vhost;
        self.rabbitmqctl(&["close_all_connections", "--vhost", vhost, "closed by a test"])
            .await
    }

    async fn wait_for_alarm(&self, resource: &str, on: bool) -> anyhow::Result<()> {
        let what = format!(
            "the {resource} alarm is {}",
            if on { "raised" } else { "cleared" }
        );
        wait_until(&what, ALARM_LIMIT, async || {
            let request = self.http.get(self.queue().api("health/checks/local-alarms"));
            let broker = self.queue();
            let request = request.basic_auth(&broker.user, Some(&broker.password));
            let answer: serde_json::Value = request.send().await?.json().await?;
            let status = answer["status"].as_str().context("no status")?;
            let alarms = answer["alarms"].as_array().into_iter().flatten();
            let raised = status != "ok" && alarms.clone().any(|alarm| alarm["resource"] == resource);
            Ok(raised == on)
        })
        .await
    }
}
