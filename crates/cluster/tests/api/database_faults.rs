//! The faults of PostgreSQL that the harness can make.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Server};
use sqlx::{Connection as _, PgConnection};

#[tokio::test]
async fn a_server_that_was_killed_amid_work_starts_again_with_what_was_committed() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only().with_own_servers()).await?;
    let pool = cluster.write_model();
    sqlx::query("CREATE TABLE entry (id int)").execute(pool).await?;
    for immediately in [true, false] {
        sqlx::query("INSERT INTO entry VALUES (1)").execute(pool).await?;
        // This session does not notice that its server is gone while it counts.
        let mut busy = pool.acquire().await?;
        let work = tokio::spawn(async move {
            let count = sqlx::query("SELECT count(*) FROM generate_series(1, 1000000000)");
            count.execute(&mut *busy).await.is_err()
        });
        cluster::wait_until("the work has begun", Duration::from_secs(10), async || {
            let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM gen%'";
            Ok(sqlx::query_scalar::<_, i64>(active).fetch_one(pool).await? > 0)
        })
        .await?;
        if immediately {
            cluster.stop_server_immediately(Server::WriteModel).await?;
        } else {
            cluster.kill_server(Server::WriteModel).await?;
        }
        cluster.start_server(Server::WriteModel).await?;
        assert!(work.await?, "the work was done");
    }
    let entries: i64 = sqlx::query_scalar("SELECT count(*) FROM entry")
        .fetch_one(pool)
        .await?;
    assert_eq!(entries, 2);
    Ok(())
}

#[tokio::test]
async fn the_clock_of_a_server_is_set_back_and_right_again() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only().with_own_servers()).await?;
    let behind_s = async || {
        let theirs = "SELECT extract(epoch FROM clock_timestamp())::bigint";
        let theirs: i64 = sqlx::query_scalar(theirs)
            .fetch_one(cluster.write_model())
            .await?;
        let ours = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        anyhow::Ok(i64::try_from(ours.as_secs())? - theirs)
    };
    for (offset, expected) in [(Some("-10m"), 600), (None, 0)] {
        cluster.set_server_clock(Server::WriteModel, offset)?;
        cluster.stop_server_immediately(Server::WriteModel).await?;
        cluster.start_server(Server::WriteModel).await?;
        let behind_s = behind_s().await?;
        assert!((behind_s - expected).abs() < 30, "{behind_s} s behind");
    }
    Ok(())
}

#[tokio::test]
async fn an_administrator_locks_services_out_and_lets_them_in_again() -> anyhow::Result<()> {
    let databases = Options {
        services: Vec::new(),
        ..Options::default()
    };
    let cluster = Cluster::start(databases.with_own_servers()).await?;
    let address = &cluster.addresses().read_model;
    let owner = &address.owner;
    let options = address.options().username(&owner.user).password(&owner.password);
    let state = async |statement: &'static str| {
        let connected = PgConnection::connect_with(&options).await;
        let outcome = match connected {
            Ok(mut connection) => sqlx::query(statement).execute(&mut connection).await.map(drop),
            Err(error) => Err(error),
        };
        let Err(error) = outcome else { return Ok(None) };
        let refusal = error.as_database_error().context("not the server's verdict")?;
        anyhow::Ok(refusal.code().map(|code| code.into_owned()))
    };
    let mut administrator = cluster.administrator(Server::ReadModel).await?;
    let write = "CREATE TABLE IF NOT EXISTS entry (id int)";
    for _ in 0..2 {
        let mut session = PgConnection::connect_with(&options).await?;
        administrator.set_read_only(true).await?;
        assert!(session.ping().await.is_err(), "the session goes on");
        assert_eq!(state("SELECT 1").await?, None);
        assert_eq!(state(write).await?.as_deref(), Some("25006"));
        administrator.set_read_only(false).await?;
        assert_eq!(state(write).await?, None);

        administrator.set_password(false).await?;
        assert_eq!(state(write).await?.as_deref(), Some("28P01"));
        administrator.set_password(true).await?;
        assert_eq!(state(write).await?, None);

        administrator.set_renamed(true).await?;
        assert_eq!(state(write).await?.as_deref(), Some("3D000"));
        administrator.set_renamed(false).await?;
        assert_eq!(state(write).await?, None);
    }
    Ok(())
}
