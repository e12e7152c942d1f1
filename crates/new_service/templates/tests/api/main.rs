//! `{{name}}` as its clients see it: its real binary, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

use std::process::{Child, Command};
use std::time::Duration;

use anyhow::ensure;
use cluster::{Cluster, Options, Service, wait_until};
use serde_json::{Value, json};

/// The model of this service. The tests do not start it: this service gets its environment and its port.
const MODEL: Service = Service::{{variant}};

/// Far longer than a start takes: only a failing test waits that long.
const LIMIT: Duration = Duration::from_secs(60);

/// The running service, and the cluster around it.
struct Running {
    process: Child,
    cluster: Cluster,
}

impl Running {
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start({{ "Options::only(&[Service::Migration])" if waits_for_migration else "Options { services: Vec::new(), ..Options::default() }" }}).await?;
        let process = Command::new(env!("CARGO_BIN_EXE_{{name}}"))
            .env_clear()
            .envs(cluster.environment(MODEL)?)
            .env("RUST_LOG", "warn")
            .spawn()?;
        let mut running = Self { process, cluster };
        let (http, url) = (running.cluster.http(), running.url("/healthcheck"));
        wait_until("{{name}} is healthy", LIMIT, async || {
            let ended = running.process.try_wait()?.is_some();
            Ok(ended || http.get(&url).send().await?.status().is_success())
        })
        .await?;
        ensure!(running.process.try_wait()?.is_none(), "the service ended: see above");
        Ok(running)
    }

    fn url(&self, path: &str) -> String {
        self.cluster.url(MODEL) + path
    }

    /// Status and body of the answer to a `GET`; the body must be JSON.
    async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        let response = self.cluster.http().get(self.url(path)).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process must end before its databases are removed. An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn the_health_check_is_null() -> anyhow::Result<()> {
    let running = Running::start().await?;
    assert_eq!(running.get("/healthcheck").await?, (200, Value::Null));
    Ok(())
}

#[tokio::test]
async fn the_example_answers_and_is_documented() -> anyhow::Result<()> {
    let running = Running::start().await?;
    assert_eq!(running.get("/{{name}}").await?, (200, json!({"service": "{{name}}"})));
    let (status, document) = running.get("/openapi.json").await?;
    assert_eq!(status, 200);
    assert!(document.pointer("/paths/~1{{name}}/get").is_some(), "{document}");
    assert_eq!(running.get("/elsewhere").await?, (404, json!({"detail": "Not Found"})));
    Ok(())
}

#[tokio::test]
async fn it_is_observed() -> anyhow::Result<()> {
    let running = Running::start().await?;
    assert_eq!(running.get("/livez").await?, (200, Value::Null));
    assert_eq!(running.get("/readyz").await?, (200, Value::Null));
    let metrics = running.cluster.http().get(running.url("/metrics")).send().await?.text().await?;
    assert!(metrics.contains("pydist_build_info{service=\"{{name}}\""), "{metrics}");
    Ok(())
}

#[test]
fn an_empty_environment_is_refused_with_every_missing_name() -> anyhow::Result<()> {
    let ended = Command::new(env!("CARGO_BIN_EXE_{{name}}")).env_clear().output()?;
    assert_eq!(ended.status.code(), Some(1));
    let stderr = String::from_utf8(ended.stderr)?;
    for name in [
        "SERVICE_HOST",
        "SERVICE_PORT",
        {% for group in groups %}
        {% for suffix in group.required %}"{{group.prefix}}_{{suffix}}", {% endfor %}

        {% endfor %}
    ] {
        assert!(stderr.contains(&format!("{name} ")), "{name} is not named in: {stderr}");
    }
    Ok(())
}
