//! Passwords are rotated while the services run: first the role or user, then the file, then the sessions are ended.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cluster::{BrokerAddress, Cluster, Options, Service, wait_until};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

const LIMIT: Duration = Duration::from_secs(60);

/// A role of both databases and a user of the broker, with a file that contains their password.
struct Login {
    folder: tempfile::TempDir,
    broker: BrokerAddress,
}

impl Login {
    async fn make(cluster: &Cluster) -> anyhow::Result<Self> {
        let user = format!("rotated_{}", uuid::Uuid::new_v4().simple());
        let login = Self {
            folder: tempfile::tempdir()?,
            broker: BrokerAddress {
                user,
                ..cluster.queue().clone()
            },
        };
        let addresses = cluster.addresses();
        for (pool, address) in [
            (cluster.write_model(), &addresses.write_model),
            (cluster.read_model(), &addresses.read_model),
        ] {
            let (user, owner) = (&login.broker.user, &address.owner.user);
            run(pool, format!("CREATE ROLE {user} LOGIN IN ROLE {owner}")).await?;
        }
        login.set(cluster, "first").await?;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        login
            .manage(
                cluster,
                cluster
                    .http()
                    .put(login.broker.api("permissions/{vhost}/{user}"))
                    .json(&all),
            )
            .await?;
        Ok(login)
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("password")
    }

    /// Changes the password on the servers, then in the file, as an operator would.
    async fn set(&self, cluster: &Cluster, password: &str) -> anyhow::Result<()> {
        for pool in [cluster.write_model(), cluster.read_model()] {
            run(
                pool,
                format!("ALTER ROLE {} PASSWORD '{password}'", self.broker.user),
            )
            .await?;
        }
        let user = json!({"password": password, "tags": ""});
        self.manage(
            cluster,
            cluster.http().put(self.broker.api("users/{user}")).json(&user),
        )
        .await?;
        replace(&self.file(), password)
    }

    async fn end_sessions(&self, cluster: &Cluster) -> anyhow::Result<()> {
        for pool in [cluster.write_model(), cluster.read_model()] {
            let statement = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'",
                self.broker.user
            );
            run(pool, statement).await?;
        }
        wait_until("the broker has ended the sessions", LIMIT, async || {
            let list = cluster.http().get(self.broker.api("vhosts/{vhost}/connections"));
            let broker = cluster.queue();
            let list = list
                .basic_auth(&broker.user, Some(&broker.password))
                .send()
                .await?;
            let list: Vec<Value> = list.error_for_status()?.json().await?;
            // The list is a few seconds old, so wait until all three services are in it.
            anyhow::ensure!(list.len() >= 3, "{} connections", list.len());
            for connection in list {
                let mut url = reqwest::Url::parse(&self.broker.api("connections"))?;
                let name = connection["name"].as_str().unwrap_or_default();
                url.path_segments_mut()
                    .map_err(|()| anyhow::anyhow!("no path"))?
                    .push(name);
                self.manage(cluster, cluster.http().delete(url)).await?;
            }
            Ok(true)
        })
        .await
    }

    async fn manage(&self, cluster: &Cluster, request: reqwest::RequestBuilder) -> anyhow::Result<()> {
        let broker = cluster.queue();
        let request = request.basic_auth(&broker.user, Some(&broker.password));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    async fn remove(self, cluster: &Cluster) -> anyhow::Result<()> {
        for pool in [cluster.write_model(), cluster.read_model()] {
            run(pool, format!("DROP ROLE {}", self.broker.user)).await?;
        }
        self.manage(cluster, cluster.http().delete(self.broker.api("users/{user}")))
            .await
    }
}

/// Replaces the file atomically, as mounted secrets are.
fn replace(file: &Path, password: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{password}\n"))?;
    Ok(fs::rename(new, file)?)
}

async fn run(pool: &sqlx::PgPool, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}

async fn put_order(cluster: &Cluster) -> anyhow::Result<()> {
    let put = cluster.put_order(&cluster::new_order("USD", "1.00"));
    put.send().await?.error_for_status()?;
    Ok(())
}

async fn orders_in_page(cluster: &Cluster) -> anyhow::Result<usize> {
    let page = cluster
        .http()
        .get(cluster.url(Service::FetchBuyOrders) + "/buy_orders");
    let page: Value = page.send().await?.error_for_status()?.json().await?;
    Ok(page["rows"].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn a_password_file_that_was_rotated_counts_from_the_next_connection_on() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await?;
    let login = Login::make(&cluster).await?;
    let file = login.file().display().to_string();
    for service in Service::OF_ORDERS {
        for prefix in ["WRITE_MODEL_DB", "READ_MODEL_DB", "Q"] {
            cluster.set_env(service, &format!("{prefix}_USER"), &login.broker.user);
            cluster.set_env(service, &format!("{prefix}_PWD"), "");
            cluster.set_env(service, &format!("{prefix}_PWD_FILE"), &file);
        }
        cluster.start_service(service).await?;
    }
    put_order(&cluster).await?;
    wait_until("the order is in the page", LIMIT, async || {
        Ok(orders_in_page(&cluster).await? == 1)
    })
    .await?;

    login.set(&cluster, "second").await?;
    login.end_sessions(&cluster).await?;
    wait_until("an order is accepted", LIMIT, async || {
        put_order(&cluster).await.map(|()| true)
    })
    .await?;
    wait_until("it is in the page", LIMIT, async || {
        Ok(orders_in_page(&cluster).await? >= 2)
    })
    .await?;
    for service in Service::OF_ORDERS {
        assert!(cluster.pid(service).is_some());
        let starts = cluster
            .logs(service)
            .iter()
            .filter(|event| event["event"] == "service_started")
            .count();
        assert!(starts <= 1, "{service:?} was started {starts} times");
        cluster.stop(service).await?;
    }
    login.remove(&cluster).await
}
