//! A disk of the write model that is full for some time.

use anyhow::Context as _;
use cluster::{Cluster, Options};
use sqlx::{Connection as _, PgConnection, PgPool};

const BYTES: u64 = 160 * 1024 * 1024;

/// Only root can mount a disk. For other users this checks only the error message.
async fn cluster_with_disk() -> anyhow::Result<Option<Cluster>> {
    let options = Options::servers_only().with_write_model_disk(BYTES);
    if rustix::process::geteuid().is_root() {
        return Ok(Some(Cluster::start(options).await?));
    }
    let refused = Cluster::start(options).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("needs root"), "{refused:#}");
    Ok(None)
}

/// A megabyte of rows.
async fn insert(pool: &PgPool) -> sqlx::Result<u64> {
    let rows = "INSERT INTO entry SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    Ok(sqlx::query(rows).execute(pool).await?.rows_affected())
}

async fn count(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM entry")
        .fetch_one(pool)
        .await
}

#[tokio::test]
async fn a_full_disk_refuses_rows_until_there_is_room_again() -> anyhow::Result<()> {
    let Some(cluster) = cluster_with_disk().await? else {
        return Ok(());
    };
    let pool = cluster.write_model();
    sqlx::query("CREATE TABLE entry (text text)")
        .execute(pool)
        .await?;
    insert(pool).await?;
    assert!(
        cluster.free_write_model_disk().await.is_err(),
        "it was not filled"
    );
    cluster.fill_write_model_disk().await?;
    let refused = insert(pool).await.unwrap_err();
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("53100"), "{refused}");
    assert_eq!(count(pool).await?, 1000);
    cluster.free_write_model_disk().await?;
    insert(pool).await?;
    assert_eq!(count(pool).await?, 2000);
    Ok(())
}

#[tokio::test]
async fn a_server_that_died_of_a_full_disk_is_started_when_there_is_room_again() -> anyhow::Result<()> {
    let Some(cluster) = cluster_with_disk().await? else {
        return Ok(());
    };
    let pool = cluster.write_model();
    sqlx::query("CREATE TABLE entry (text text)")
        .execute(pool)
        .await?;
    insert(pool).await?;
    cluster.exhaust_write_model_disk().await?;
    let refused = PgConnection::connect_with(&cluster.addresses().write_model.options()).await;
    assert!(matches!(refused, Err(sqlx::Error::Io(_))), "{refused:?}");
    cluster.free_write_model_disk().await?;
    assert_eq!(count(pool).await?, 1000);
    insert(pool).await.context("there is room again")?;
    Ok(())
}
