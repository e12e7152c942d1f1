//! Databases that are read-only for now, as a standby or by `default_transaction_read_only`.

use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{databases, healthy, named, once};

const LIMIT: Duration = Duration::from_secs(60);

/// For sessions that begin later.
async fn set_read_only(pool: &PgPool, value: &str) -> anyhow::Result<()> {
    let name: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(pool)
        .await?;
    let statement = format!(
        "SET default_transaction_read_only = off; ALTER DATABASE \"{name}\" SET default_transaction_read_only = {value}"
    );
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
    Ok(())
}

#[tokio::test]
async fn where_nothing_is_missing_a_database_that_only_reads_is_up_to_date() -> anyhow::Result<()> {
    let cluster = databases().await?;
    for pool in [cluster.write_model(), cluster.read_model()] {
        set_read_only(pool, "on").await?;
    }
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(named(&events, "database_migrated").len(), 2);
    assert!(
        named(&events, "database_migration_exception_occurred").is_empty(),
        "{events:?}"
    );
    Ok(())
}

#[tokio::test]
async fn where_something_is_missing_a_database_that_only_reads_is_waited_for() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    set_read_only(cluster.read_model(), "on").await?;
    cluster.launch(Service::Migration)?;
    wait_until("each try is an event", LIMIT, async || {
        let events = cluster.logs(Service::Migration);
        let failures = named(&events, "database_migration_exception_occurred");
        let reads_only = |event: &&Value| event.to_string().contains("read-only transaction");
        Ok(failures.iter().filter(|event| reads_only(event)).count() >= 2)
    })
    .await?;
    set_read_only(cluster.read_model(), "off").await?;
    healthy(&cluster).await
}

#[tokio::test]
async fn a_role_without_the_privilege_to_migrate_is_waited_for() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let role = cluster.addresses().read_model.name.replace("test_", "role_");
    let create = format!("CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'secret'");
    sqlx::raw_sql(AssertSqlSafe(create))
        .execute(cluster.read_model())
        .await?;
    cluster.set_env(Service::Migration, "READ_MODEL_DB_USER", &role);
    cluster.set_env(Service::Migration, "READ_MODEL_DB_PWD", "secret");
    cluster.launch(Service::Migration)?;
    wait_until("each try is an event", LIMIT, async || {
        let events = cluster.logs(Service::Migration);
        Ok(named(&events, "database_migration_exception_occurred").len() >= 2)
    })
    .await?;
    let grant = format!("GRANT CREATE ON SCHEMA public TO {role}");
    sqlx::raw_sql(AssertSqlSafe(grant))
        .execute(cluster.read_model())
        .await?;
    healthy(&cluster).await
}
