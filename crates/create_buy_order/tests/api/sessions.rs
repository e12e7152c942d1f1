//! Ended sessions, and missing rights of the service's role, until the operator repairs them: never an internal error.

use std::time::Duration;

use cluster::{Cluster, Options, Service, end_sessions, wait_until};
use sqlx::AssertSqlSafe;

use super::{buy, count, new_key, start_cluster_with_quotes_for};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster whose service has a role that no other cluster of the server has. Each order is looked up, because no quote is at hand.
async fn start_cluster_with_a_role() -> anyhow::Result<(Cluster, String)> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let role = cluster.addresses().write_model.name.replace("test_", "role_");
    cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_USER", &role);
    cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_PWD", "first");
    cluster.set_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", "0.000001");
    cluster.start_service(Service::Migration).await?;
    cluster.start_service(Service::BtcPrice).await?;
    cluster.set_env(Service::CreateBuyOrder, "WRITE_MODEL_DB_USER", &role);
    cluster.set_env(Service::CreateBuyOrder, "WRITE_MODEL_DB_PWD", "first");
    cluster.start_service(Service::CreateBuyOrder).await?;
    Ok((cluster, role))
}

async fn operate(cluster: &Cluster, statement: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(cluster.write_model())
        .await?;
    Ok(())
}

async fn readiness(cluster: &Cluster) -> anyhow::Result<u16> {
    let url = cluster.url(Service::CreateBuyOrder) + "/readyz";
    Ok(cluster.http().get(url).send().await?.status().as_u16())
}

async fn orders_are_refused_for_now(cluster: &Cluster) -> anyhow::Result<()> {
    let refused = buy(cluster, "USD", "1", &new_key()).await?;
    assert_eq!(
        (refused.status, refused.retry_after.is_some()),
        (503, true),
        "{refused:?}"
    );
    Ok(())
}

async fn orders_are_accepted_again(cluster: &Cluster) -> anyhow::Result<()> {
    wait_until("orders are accepted again", LIMIT, async || {
        Ok(buy(cluster, "USD", "1", &new_key()).await?.status == 200)
    })
    .await
}

#[tokio::test]
async fn while_the_password_of_the_role_is_another_orders_are_503_and_so_is_readiness() -> anyhow::Result<()>
{
    let (cluster, role) = start_cluster_with_a_role().await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    operate(&cluster, &format!("ALTER ROLE {role} PASSWORD 'second'")).await?;
    end_sessions(cluster.write_model()).await?;
    for _ in 0..3 {
        orders_are_refused_for_now(&cluster).await?;
    }
    wait_until("readiness says the same", LIMIT, async || {
        Ok(readiness(&cluster).await? == 503)
    })
    .await?;

    operate(&cluster, &format!("ALTER ROLE {role} PASSWORD 'first'")).await?;
    orders_are_accepted_again(&cluster).await
}

#[tokio::test]
async fn while_the_role_lacks_a_privilege_orders_are_503() -> anyhow::Result<()> {
    let (cluster, role) = start_cluster_with_a_role().await?;
    assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
    for privilege in [
        "SELECT ON buy_order",
        "SELECT ON buy_order_void",
        "SELECT ON currency",
        "EXECUTE ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[], numeric)",
    ] {
        operate(&cluster, &format!("REVOKE {privilege} FROM {role}")).await?;
        orders_are_refused_for_now(&cluster).await?;
        operate(&cluster, &format!("GRANT {privilege} TO {role}")).await?;
        orders_are_accepted_again(&cluster).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_order_whose_session_was_ended_meanwhile_is_written_on_another_one() -> anyhow::Result<()> {
    // With a quote at hand the write meets the ended session first, without one the look-up.
    for quotes_for in ["60", "0.000001"] {
        let cluster = start_cluster_with_quotes_for(quotes_for).await?;
        for orders in 1..=5 {
            let key = new_key();
            let accepted = buy(&cluster, "USD", "1", &key).await?;
            assert_eq!((accepted.status, accepted.replayed), (200, false), "{accepted:?}");
            end_sessions(cluster.write_model()).await?;
            let repeat = buy(&cluster, "USD", "1", &key).await?;
            assert_eq!((repeat.status, &repeat.body), (200, &accepted.body));
            assert_eq!(count(&cluster, "buy_order").await?, orders);
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_order_after_a_migration_that_outdated_the_kept_plans_is_written() -> anyhow::Result<()> {
    // No quote is ever at hand, so each order is looked up: the result of the look-up changes its type.
    let cluster = start_cluster_with_quotes_for("0.000001").await?;
    for scale in ["21, 8", "22, 8"] {
        assert_eq!(buy(&cluster, "USD", "1", &new_key()).await?.status, 200);
        let change = format!("ALTER TABLE buy_order ALTER COLUMN btc_rate TYPE numeric({scale})");
        operate(&cluster, &change).await?;
        let accepted = buy(&cluster, "USD", "1", &new_key()).await?;
        assert_eq!(accepted.status, 200, "{accepted:?}");
    }
    Ok(())
}
