//! How migrations are applied.

use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};
use common::money::Currency;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{Once, applied, databases, failure, migrations, named, once};

const LIMIT: Duration = Duration::from_secs(60);

/// Version, name and time of each applied migration.
async fn history(pool: &PgPool) -> anyhow::Result<Vec<(i32, String, String)>> {
    const HISTORY: &str = "SELECT version, name, applied_on FROM refinery_schema_history ORDER BY version";
    Ok(sqlx::query_as(HISTORY).fetch_all(pool).await?)
}

fn both(read_model: u64, write_model: u64) -> Vec<(String, u64)> {
    vec![
        ("read_model".to_owned(), read_model),
        ("write_model".to_owned(), write_model),
    ]
}

/// All migrations of both models.
fn all() -> anyhow::Result<Vec<(String, u64)>> {
    Ok(both(migrations("read_model")?, migrations("write_model")?))
}

async fn history_length(pool: &PgPool) -> anyhow::Result<u64> {
    Ok(u64::try_from(history(pool).await?.len())?)
}

#[tokio::test]
async fn once_applies_both_schemas_and_exits_with_0() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(applied(&events), all()?);
    assert_eq!(named(&events, "connected_to_database").len(), 2);
    for (pool, model) in [
        (cluster.write_model(), "write_model"),
        (cluster.read_model(), "read_model"),
    ] {
        assert_eq!(history_length(pool).await?, migrations(model)?);
    }
    Ok(())
}

#[tokio::test]
async fn databases_that_are_up_to_date_are_left_as_they_are() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let before = (
        history(cluster.write_model()).await?,
        history(cluster.read_model()).await?,
    );
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(applied(&events), both(0, 0));
    assert_eq!(
        (
            history(cluster.write_model()).await?,
            history(cluster.read_model()).await?
        ),
        before
    );
    Ok(())
}

#[tokio::test]
async fn of_migrations_that_run_at_once_one_applies_and_all_succeed() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let runs = (0..5).map(|_| once(&cluster));
    let mut applied_in_all = 0;
    for (exit_code, events) in try_join_all(runs).await? {
        assert_eq!(exit_code, Some(0), "{events:?}");
        applied_in_all += applied(&events)
            .iter()
            .map(|(_, migrations)| migrations)
            .sum::<u64>();
    }
    assert_eq!(
        applied_in_all,
        migrations("read_model")? + migrations("write_model")?
    );
    Ok(())
}

#[tokio::test]
async fn a_migration_killed_in_the_middle_is_completed_by_the_next() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    // The migration waits, because another transaction is creating a table of the same name.
    let mut obstacle = cluster.write_model().begin().await?;
    sqlx::query("CREATE TABLE buy_order (id int)")
        .execute(&mut *obstacle)
        .await?;
    let run = Once::start(&cluster)?;
    wait_until("the migration is in the middle", LIMIT, async || {
        const BLOCKED: &str = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'migration'
              AND wait_event_type = 'Lock' AND wait_event <> 'advisory'";
        let blocked: i64 = sqlx::query_scalar(BLOCKED)
            .fetch_one(cluster.write_model())
            .await?;
        Ok(blocked == 1)
    })
    .await?;
    run.kill()?;
    obstacle.rollback().await?;

    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(
        history_length(cluster.write_model()).await?,
        migrations("write_model")?
    );
    let currencies: Vec<String> = sqlx::query_scalar("SELECT iso3 FROM currency ORDER BY id")
        .fetch_all(cluster.write_model())
        .await?;
    assert!(
        currencies.starts_with(&["USD", "GBP", "EUR"].map(str::to_owned)),
        "{currencies:?}"
    );
    assert_eq!(currencies.len(), Currency::ALL.len());
    Ok(())
}

#[tokio::test]
async fn a_migration_that_differs_from_the_applied_one_is_a_failure_at_once() -> anyhow::Result<()> {
    let cluster = databases().await?;
    sqlx::query("UPDATE refinery_schema_history SET checksum = '1'")
        .execute(cluster.read_model())
        .await?;
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(1));
    let failures = named(&events, "database_migration_exception_occurred");
    let [failure] = failures.as_slice() else {
        anyhow::bail!("not one failure in {events:?}")
    };
    assert_eq!(failure.get("database"), Some(&json!("read_model")));
    let info = failure.get("info").and_then(Value::as_str).unwrap_or_default();
    assert!(info.contains("is different than"), "{info}");
    Ok(())
}

#[tokio::test]
async fn an_older_image_starts_on_a_newer_schema() -> anyhow::Result<()> {
    const NEWER: &str = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
        SELECT 99, 'of_a_later_image', applied_on, '1' FROM refinery_schema_history WHERE version = 1";
    let cluster = databases().await?;
    sqlx::query(NEWER).execute(cluster.write_model()).await?;
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    Ok(())
}

#[tokio::test]
async fn health_is_refused_while_a_database_is_away_and_answered_once_it_was_migrated() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Options::servers_only()).await?;
    let late = format!("{}_late", cluster.addresses().read_model.name);
    cluster.set_env(Service::Migration, "READ_MODEL_DB_NAME", &late);
    cluster.launch(Service::Migration)?;
    wait_until("each try is an event", LIMIT, async || {
        let events = cluster.logs(Service::Migration);
        Ok(named(&events, "failed_to_connect_to_database").len() >= 2
            && applied(&events) == [("write_model".to_owned(), migrations("write_model")?)])
    })
    .await?;
    let url = format!("{}/healthcheck", cluster.url(Service::Migration));
    assert!(
        cluster
            .http()
            .get(&url)
            .send()
            .await
            .is_err_and(|error| error.is_connect())
    );
    let events = cluster.logs(Service::Migration);
    let refused = named(&events, "failed_to_connect_to_database").remove(0).clone();
    assert_eq!(refused.get("database"), Some(&json!("read_model")));
    for field in ["host", "port", "user", "error"] {
        assert!(
            refused.get(field).is_some_and(|value| !value.is_null()),
            "{field} in {refused}"
        );
    }

    let owner = &cluster.addresses().read_model.owner.user;
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {late} OWNER {owner}")))
        .execute(cluster.read_model())
        .await?;
    let mut body = String::new();
    let healthy = wait_until("the service is healthy", LIMIT, async || {
        body = cluster
            .http()
            .get(&url)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        Ok(true)
    })
    .await;
    cluster.stop(Service::Migration).await?;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {late} WITH (FORCE)")))
        .execute(cluster.read_model())
        .await?;
    healthy?;
    assert_eq!(body, "null");
    Ok(())
}

#[tokio::test]
async fn the_process_stops_in_order_while_it_waits_and_while_it_serves() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    assert_eq!(cluster.stop(Service::Migration).await?.code(), Some(0));
    cluster.set_env(Service::Migration, "READ_MODEL_DB_NAME", "nowhere");
    cluster.launch(Service::Migration)?;
    wait_until("it waits", LIMIT, async || {
        Ok(!named(&cluster.logs(Service::Migration), "failed_to_connect_to_database").is_empty())
    })
    .await?;
    assert_eq!(cluster.stop(Service::Migration).await?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_search_path_that_an_administrator_sets_makes_no_second_schema() -> anyhow::Result<()> {
    let cluster = databases().await?;
    for pool in [cluster.write_model(), cluster.read_model()] {
        sqlx::raw_sql(
            "CREATE SCHEMA other;
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = other', current_database()); END $$",
        )
        .execute(pool)
        .await?;
    }
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert_eq!(applied(&events), both(0, 0));
    for pool in [cluster.write_model(), cluster.read_model()] {
        let made: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relnamespace = 'other'::regnamespace")
                .fetch_one(pool)
                .await?;
        assert_eq!(made, 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_schema_that_is_not_where_it_was_is_told_and_not_made_anew() -> anyhow::Result<()> {
    let cluster = databases().await?;
    sqlx::raw_sql("ALTER SCHEMA public RENAME TO other; CREATE SCHEMA public")
        .execute(cluster.write_model())
        .await?;
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(1), "{events:?}");
    assert!(
        failure(&events).contains("its tables are in the schema \"other\""),
        "{events:?}"
    );
    let made: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            .fetch_one(cluster.write_model())
            .await?;
    assert_eq!(made, 0);
    Ok(())
}
