//! The connection pool of the services.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use cluster::{Cluster, Link, Options, Service, wait_until};
use common::database::{self, MAX_CONNECTIONS, with_connection};
use common::endpoints::Database;
use common::env::Env;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::start_cluster;

const LIMIT: Duration = Duration::from_secs(10);

async fn pool(cluster: &Cluster) -> anyhow::Result<database::Pool> {
    database::connect_once(&endpoint(cluster)?, "write_model").await
}

fn endpoint(cluster: &Cluster) -> anyhow::Result<Database> {
    let mut env = Env::from_pairs(cluster.environment(Service::CreateBuyOrder)?);
    Ok(Database::from_env(&mut env, "WRITE_MODEL_DB"))
}

#[tokio::test]
async fn who_waits_while_all_connections_are_in_use_gets_one_as_soon_as_one_is_given_back()
-> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let pool = pool(&cluster).await?;
    let in_use = Arc::new(Semaphore::new(0));
    let may_end = Arc::new(Semaphore::new(0));
    let users: Vec<_> = (0..=MAX_CONNECTIONS)
        .map(|_| {
            let (pool, in_use, may_end) = (pool.clone(), Arc::clone(&in_use), Arc::clone(&may_end));
            tokio::spawn(async move {
                with_connection(&pool, async |connection| {
                    sqlx::query("SELECT 1").execute(connection).await?;
                    in_use.add_permits(1);
                    let may_end = may_end.acquire().await;
                    may_end.map_err(|_| sqlx::Error::PoolClosed)?.forget();
                    Ok(())
                })
                .await
            })
        })
        .collect();
    in_use.acquire_many(MAX_CONNECTIONS).await?.forget();
    assert_eq!(in_use.available_permits(), 0, "one waits");
    may_end.add_permits(usize::try_from(MAX_CONNECTIONS)? + 1);
    for user in join_all(users).await {
        user??;
    }
    Ok(())
}

#[tokio::test]
async fn work_that_is_dropped_midway_leaves_nothing_locked() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let pool = pool(&cluster).await?;
    let locked = Semaphore::new(0);
    let work = with_connection(&pool, async |connection| {
        sqlx::raw_sql("BEGIN; SELECT lock_running_total()")
            .execute(connection)
            .await?;
        locked.add_permits(1);
        std::future::pending::<sqlx::Result<()>>().await
    });
    tokio::select! {
        ended = work => bail!("it ended: {ended:?}"),
        permit = locked.acquire() => permit?.forget(),
    }
    wait_until("the lock is free", LIMIT, async || {
        let lock = "SELECT FROM buy_order_running_total FOR UPDATE NOWAIT";
        Ok(sqlx::query(lock).execute(cluster.write_model()).await.is_ok())
    })
    .await
}

#[tokio::test]
async fn of_connections_that_the_server_closed_one_user_at_most_is_told() -> anyhow::Result<()> {
    let cluster = start_cluster().await?;
    let pool = pool(&cluster).await?;
    let ask = async || {
        with_connection(&pool, async |connection| {
            sqlx::query("SELECT pg_sleep(0.1)").execute(connection).await
        })
        .await
    };
    for answer in join_all((0..MAX_CONNECTIONS).map(|_| ask())).await {
        answer?;
    }
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .execute(cluster.write_model())
        .await?;
    let mut failed = 0;
    for _ in 0..MAX_CONNECTIONS {
        failed += u32::from(ask().await.is_err());
    }
    assert!(failed <= 1, "{failed} failed");
    Ok(())
}

#[tokio::test]
async fn when_all_connections_fall_silent_for_ever_the_pool_works_again_within_30_s() -> anyhow::Result<()> {
    let link = Link::CreateBuyOrderToWriteModel;
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default().with_links(&[link])
    })
    .await?;
    let endpoint = Database {
        port: cluster.link(link)?.port(),
        ..endpoint(&cluster)?
    };
    let pool = database::connect_once(&endpoint, "write_model").await?;
    let work = async || {
        with_connection(&pool, async |connection| {
            sqlx::query("SELECT pg_sleep(0.1)").execute(connection).await
        })
        .await
    };
    let at_once = async || join_all((0..2 * MAX_CONNECTIONS).map(|_| work())).await;
    for answer in at_once().await {
        answer?;
    }
    // So old that they are tested before use. That test once had no timeout.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let silenced = cluster.link(link)?.silence_open();
    assert_eq!(silenced, usize::try_from(MAX_CONNECTIONS)?);
    let since = Instant::now();
    while at_once().await.iter().any(Result::is_err) {
        assert!(since.elapsed() < Duration::from_secs(30), "not yet");
    }
    Ok(())
}
