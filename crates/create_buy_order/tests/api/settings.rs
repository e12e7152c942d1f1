//! Settings of the database or the role: the service does not depend on them.

use cluster::{Cluster, Options, Service};
use futures_util::future::try_join_all;
use sqlx::AssertSqlSafe;

use super::{put_json, two_processes};

#[tokio::test]
async fn what_an_administrator_sets_for_the_database_changes_nothing_for_two_replicas() -> anyhow::Result<()>
{
    let services = [Service::BtcPrice, Service::CreateBuyOrder];
    let cluster = Cluster::start(Options {
        services: vec![Service::BtcPrice],
        ..Options::only(&services)
    })
    .await?;
    let database = cluster.addresses().write_model.name.clone();
    for setting in [
        "default_transaction_isolation = 'repeatable read'",
        "DateStyle = 'German, DMY'",
        "TimeZone = 'Asia/Tokyo'",
        "search_path = elsewhere, public",
        "standard_conforming_strings = off",
        "lc_numeric = 'C.UTF-8'",
        "statement_timeout = 1",
        "lock_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "plan_cache_mode = force_custom_plan",
    ] {
        sqlx::query(AssertSqlSafe(format!("ALTER DATABASE {database} SET {setting}")))
            .execute(cluster.write_model())
            .await?;
    }
    cluster.start_service(Service::Migration).await?;
    cluster.start_service(Service::CreateBuyOrder).await?;
    let replicas = two_processes(&cluster).await?;
    let http = cluster.http();
    for _ in 0..10 {
        let orders = (0..20).map(|order| {
            let url = &replicas[order % 2];
            let body = cluster::new_order("USD", "1");
            let http = http.clone();
            async move { put_json(&http, url, &body).await }
        });
        for answer in try_join_all(orders).await? {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    Ok(())
}
