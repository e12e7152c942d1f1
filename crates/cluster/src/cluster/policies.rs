//! Policies, with which administrators of a broker change its queues.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;
use crate::wait::wait_until;

/// The broker reports the state of its queues every few seconds.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Sets a policy on one queue, and waits until it is in force.
    ///
    /// # Errors
    /// When there is no such queue, or the broker is away or refuses the policy.
    pub async fn set_policy(&self, queue: &str, definition: Value) -> anyhow::Result<()> {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        let policy = json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
        self.manage(Method::PUT, &policy_on(queue), Some(&policy)).await?;
        self.wait_for_policy(queue, Some(queue)).await
    }

    /// Deletes the policy of a queue, and waits until it is no longer in force.
    ///
    /// # Errors
    /// When there is none, or the broker is away.
    pub async fn delete_policy(&self, queue: &str) -> anyhow::Result<()> {
        self.manage(Method::DELETE, &policy_on(queue), None).await?;
        self.wait_for_policy(queue, None).await
    }

    async fn wait_for_policy(&self, queue: &str, name: Option<&str>) -> anyhow::Result<()> {
        wait_until("the queue has its policy", IN_FORCE_LIMIT, async || {
            let resource = format!("queues/{{vhost}}/{queue}");
            let queue: Value = self.manage(Method::GET, &resource, None).await?.json().await?;
            Ok(queue["policy"].as_str() == name)
        })
        .await
    }
}

/// A policy has the name of its queue: each queue has at most one.
fn policy_on(queue: &str) -> String {
    format!("policies/{{vhost}}/{queue}")
}
