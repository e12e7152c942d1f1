//! `create_buy_order --republish`: the read model can be thrown away.

use std::process::Command;
use std::time::Duration;

use cluster::{Cluster, Options, Service, wait_until};

use super::outbox::{everything_is_projected, place, projected};

#[tokio::test]
async fn a_read_model_that_was_emptied_is_equal_again_row_by_row_while_orders_come_in() -> anyhow::Result<()>
{
    const ORDERS: usize = 2_500;
    let cluster = Cluster::start(Options::default()).await?;
    let urls = [cluster.url(Service::CreateBuyOrder)];
    place(&cluster, &urls, ORDERS).await?;
    everything_is_projected(&cluster).await?;
    let before = projected(&cluster).await?;
    assert_eq!(before.len(), ORDERS);

    sqlx::query("TRUNCATE buy_order_read_model")
        .execute(cluster.read_model())
        .await?;
    let mut admin = republish(&cluster)?.spawn()?;
    place(&cluster, &urls, 200).await?;
    wait_until(
        "the admin process has ended",
        Duration::from_secs(60),
        async || Ok(admin.try_wait()?.is_some()),
    )
    .await?;
    assert_eq!(admin.wait()?.code(), Some(0));

    everything_is_projected(&cluster).await?;
    let after = projected(&cluster).await?;
    assert_eq!(after.len(), ORDERS + 200);
    assert_eq!(after[..ORDERS], before);
    Ok(())
}

#[tokio::test]
async fn an_empty_book_is_republished_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    assert_eq!(republish(&cluster)?.status()?.code(), Some(0));
    Ok(())
}

fn republish(cluster: &Cluster) -> anyhow::Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_create_buy_order"));
    command
        .arg("--republish")
        .env_clear()
        .envs(cluster.environment(Service::CreateBuyOrder)?)
        .env("RUST_LOG", "warn");
    Ok(command)
}
