//! RabbitMQ's management interface.

use anyhow::{Context as _, ensure};
use cluster::Cluster;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

/// Reads a resource. `{vhost}` in its name is replaced by the cluster's virtual host.
///
/// # Errors
/// When the broker is away or has no such resource.
pub async fn get(cluster: &Cluster, resource: &str) -> anyhow::Result<Value> {
    let url = cluster.queue().api(resource);
    Ok(ask(cluster, cluster.http().get(url)).await?.json().await?)
}

/// Creates a resource.
///
/// # Errors
/// When the broker is away, or refuses.
pub async fn put(cluster: &Cluster, resource: &str, body: &Value) -> anyhow::Result<()> {
    let url = cluster.queue().api(resource);
    ask(cluster, cluster.http().put(url).json(body)).await?;
    Ok(())
}

async fn ask(cluster: &Cluster, request: RequestBuilder) -> anyhow::Result<Response> {
    let broker = cluster.queue();
    let answer = request
        .basic_auth(&broker.user, Some(&broker.password))
        .send()
        .await
        .context("RabbitMQ's management interface does not answer")?;
    let (status, url) = (answer.status(), answer.url().clone());
    ensure!(status.is_success(), "RabbitMQ answered {status} to {url}");
    Ok(answer)
}
