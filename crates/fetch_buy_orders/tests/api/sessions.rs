//! What an operator does to the database or its sessions, and undoes, is an outage and never a `500`.

use std::time::Duration;

use cluster::{Cluster, end_sessions, wait_until};
use reqwest::StatusCode;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{cluster, get, insert};

const LIMIT: Duration = Duration::from_secs(60);

const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";

/// Renames the database of the read model, after ending its sessions.
async fn rename(cluster: &Cluster, from: &str, to: &str) -> anyhow::Result<()> {
    let options = cluster.addresses().read_model.named("postgres").options();
    let mut maintenance = PgConnection::connect_with(&options).await?;
    wait_until("nobody is connected", LIMIT, async || {
        sqlx::query(END_SESSIONS)
            .bind(from)
            .execute(&mut maintenance)
            .await?;
        let rename = format!("ALTER DATABASE \"{from}\" RENAME TO \"{to}\"");
        sqlx::query(AssertSqlSafe(rename))
            .execute(&mut maintenance)
            .await?;
        Ok(true)
    })
    .await?;
    Ok(maintenance.close().await?)
}

#[tokio::test]
async fn while_the_database_has_another_name_pages_are_503_and_so_is_readiness() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    assert_eq!(get(&cluster, "/buy_orders").await?.status, StatusCode::OK);
    let name = cluster.addresses().read_model.name.clone();
    let other = format!("{name}_renamed");
    rename(&cluster, &name, &other).await?;
    for _ in 0..3 {
        let answer = get(&cluster, "/buy_orders").await?;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    wait_until("readiness says the same", LIMIT, async || {
        Ok(get(&cluster, "/readyz").await?.status == StatusCode::SERVICE_UNAVAILABLE)
    })
    .await?;

    rename(&cluster, &other, &name).await?;
    wait_until("pages are served again", LIMIT, async || {
        Ok(get(&cluster, "/buy_orders").await?.status == StatusCode::OK)
    })
    .await
}

#[tokio::test]
async fn a_page_whose_session_was_ended_meanwhile_is_read_on_another_one() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    for _ in 0..5 {
        assert_eq!(get(&cluster, "/buy_orders").await?.ids().len(), 3);
        end_sessions(cluster.read_model()).await?;
        let answer = get(&cluster, "/buy_orders").await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_page_after_a_migration_that_outdated_the_kept_plan_is_read() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    for kind in ["varchar(3)", "text"] {
        assert_eq!(get(&cluster, "/buy_orders").await?.ids().len(), 3);
        let change = format!("ALTER TABLE buy_order_read_model ALTER COLUMN currency_iso3 TYPE {kind}");
        sqlx::query(AssertSqlSafe(change))
            .execute(cluster.read_model())
            .await?;
        let answer = get(&cluster, "/buy_orders").await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    Ok(())
}
