//! Family 4: RabbitMQ. Orders are accepted throughout, whatever happens to it.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Options, Server, Service};

use crate::scenario::Scenario;
use crate::stage::Stage;

const AWAY: Duration = Duration::from_secs(3);
const ALARM: Duration = Duration::from_secs(30);
const QUEUE: &str = "buy_order";

pub(super) fn scenarios() -> Vec<Scenario> {
    let own = || Options::default().with_own_servers();
    vec![
        Scenario::new(4, "broker-restarted", |stage| Box::pin(restarted(stage))).with_options(own()),
        Scenario::new(4, "broker-meddled-with", |stage| Box::pin(reconfigured(stage))).with_options(own()),
        Scenario::new(4, "broker-alarmed", |stage| Box::pin(alarmed(stage))).with_options(own()),
        Scenario::new(4, "queue-deleted", |stage| Box::pin(queue_deleted(stage))),
    ]
}

async fn restarted(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let killed = async {
        cluster.kill_server(Server::Broker).await?;
        Stage::last(AWAY).await;
        cluster.start_server(Server::Broker).await
    };
    stage.harmless_fault("RabbitMQ: `kill -9`", "", killed).await?;
    let stopped = async {
        cluster.stop_server(Server::Broker).await?;
        Stage::last(AWAY).await;
        cluster.start_server(Server::Broker).await
    };
    stage
        .harmless_fault("RabbitMQ: clean restart", "", stopped)
        .await?;
    let app_stopped = async {
        cluster.broker_stop_app().await?;
        Stage::last(AWAY).await;
        cluster.broker_start_app().await
    };
    stage
        .harmless_fault("RabbitMQ: `stop_app`", "", app_stopped)
        .await?;
    // Messages sent to it meanwhile are on no disk, and are not confirmed.
    let killed_while_frozen = async {
        cluster.pause_server(Server::Broker)?;
        Stage::last(AWAY).await;
        cluster.kill_paused_server(Server::Broker)?;
        cluster.start_server(Server::Broker).await
    };
    stage
        .harmless_fault("RabbitMQ: SIGSTOP, then `kill -9`", "", killed_while_frozen)
        .await
}

async fn reconfigured(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    for _ in 0..3 {
        let closed = cluster.close_broker_connections();
        stage
            .harmless_fault("RabbitMQ: connections closed by the server", "", closed)
            .await?;
    }
    let unbound = async {
        cluster.unbind_queue(QUEUE).await?;
        Stage::last(AWAY).await;
        Ok(())
    };
    stage
        .harmless_fault("RabbitMQ: exchange unbound", "", unbound)
        .await?;
    let frozen = async {
        cluster.pause_server(Server::Broker)?;
        Stage::last(Duration::from_secs(30)).await;
        cluster.resume_server(Server::Broker)
    };
    stage
        .harmless_fault("RabbitMQ: SIGSTOP for 30 s, SIGCONT", "", frozen)
        .await?;
    // The messages that the relay had in flight must not be lost.
    let killed_meanwhile = async {
        cluster.pause_server(Server::Broker)?;
        Stage::last(AWAY).await;
        cluster.kill(Service::CreateBuyOrder).await?;
        cluster.launch(Service::CreateBuyOrder)?;
        Stage::last(AWAY).await;
        cluster.resume_server(Server::Broker)
    };
    stage
        .fault(
            "RabbitMQ: SIGSTOP, and the relay killed meanwhile",
            "",
            killed_meanwhile,
        )
        .await
}

async fn alarmed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let memory = async {
        cluster.broker_memory_alarm(true).await?;
        Stage::last(ALARM).await;
        cluster.broker_memory_alarm(false).await
    };
    stage
        .harmless_fault("RabbitMQ: memory alarm for 30 s", "", memory)
        .await?;
    let disk = async {
        cluster.broker_disk_alarm(true).await?;
        Stage::last(ALARM).await;
        cluster.broker_disk_alarm(false).await
    };
    stage
        .harmless_fault("RabbitMQ: disk alarm for 30 s", "", disk)
        .await
}

/// The messages of a deleted queue are lost, and only the write model still has their orders. So this fault ends with what an operator does
/// (`docs/operations.md`): the orders since shortly before are republished.
async fn queue_deleted(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let deleted = async {
        let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 1) FROM buy_order")
            .fetch_one(cluster.write_model())
            .await?;
        cluster.delete_queue(QUEUE).await?;
        Stage::last(AWAY).await;
        let from = (last - 1_000).max(1).to_string();
        super::messages::republish(&cluster, &["--from-id", &from]).await
    };
    stage
        .harmless_fault("RabbitMQ: queue deleted, orders republished", "", deleted)
        .await
}
