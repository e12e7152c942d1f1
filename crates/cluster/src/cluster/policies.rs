//! Policies, by which administrators of a broker change its queues.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;
use crate::wait::wait_until;

/// The broker tells of its queues every few seconds.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);

impl Cluster {
    /// Sets a policy on one queue, and waits until it is in force.
    ///
    /// # Errors
    /// When there is no such queue, or the broker is away or does not take it.
    pub async fn set_policy(&self, queue: &str, definition: Value) -> anyhow::Result<()> {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        let policy = json!({"pattern": pattern, "definition": definition, "apply-to": "queues"});
        self.ask(Method::PUT, &policy_on(queue), Some(&policy)).await?;
        self.policy_is(queue, Some(queue)).await
    }

    /// Takes the policy of a queue away, and waits until it is in force no more.
    ///
    /// # Errors
    /// When there is none, or the broker is away.
    pub async fn delete_policy(&self, queue: &str) -> anyhow::Result<()> {
        self.ask(Method::DELETE, &policy_on(queue), None).await?;
        self.policy_is(queue, None).await
    }

    async fn policy_is(&self, queue: &str, name: Option<&str>) -> anyhow::Result<()> {
        wait_until("the queue has its policy", IN_FORCE_WITHIN, async || {
            let question = format!("queues/{{vhost}}/{queue}");
            let queue: Value = self.ask(Method::GET, &question, None).await?.json().await?;
            Ok(queue["policy"].as_str() == name)
        })
        .await
    }
}

/// Called as its queue: each has one at most.
fn policy_on(queue: &str) -> String {
    format!("policies/{{vhost}}/{queue}")
}
