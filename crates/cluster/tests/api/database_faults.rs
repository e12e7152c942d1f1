//! What the harness can do to PostgreSQL.

use std::time::Duration;

use cluster::{Cluster, Options, Server};

#[tokio::test]
async fn a_server_that_was_killed_amid_work_starts_again_with_what_was_committed() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only().with_own_servers()).await?;
    let pool = cluster.write_model();
    sqlx::query("CREATE TABLE entry (id int)").execute(pool).await?;
    for immediately in [true, false] {
        sqlx::query("INSERT INTO entry VALUES (1)").execute(pool).await?;
        // Does not look whether its server is gone while it counts.
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
