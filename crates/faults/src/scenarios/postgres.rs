//! Family 5: PostgreSQL of the write model and of the read model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Cluster, DatabaseAddress, Options, Server, Service, lock_running_total};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool};

use crate::scenario::Scenario;
use crate::stage::Stage;

const AWAY: Duration = Duration::from_secs(3);
const LOCKED: Duration = Duration::from_secs(20);
const DISTURBED: Duration = Duration::from_secs(10);
const TOO_MANY_CONNECTIONS: &str = "53300";

pub(super) fn scenarios() -> Vec<Scenario> {
    [
        (Server::WriteModel, "write-model"),
        (Server::ReadModel, "read-model"),
    ]
    .into_iter()
    .map(|(server, name)| {
        Scenario::new(5, format!("database-{name}"), move |stage| {
            Box::pin(broken(stage, server, name))
        })
        .with_options(Options::default().with_own_servers())
    })
    .collect()
}

async fn broken(stage: &mut Stage, server: Server, name: &str) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let killed = async {
        cluster.kill_server(server).await?;
        Stage::last(AWAY).await;
        cluster.start_server(server).await
    };
    stage
        .fault("PostgreSQL: `kill -9` of the postmaster", name, killed)
        .await?;
    let stopped = async {
        cluster.stop_server_immediately(server).await?;
        Stage::last(AWAY).await;
        cluster.start_server(server).await
    };
    stage
        .fault("PostgreSQL: immediate shutdown", name, stopped)
        .await?;

    // The orders that the service had in flight must not be lost.
    let user = user_of(server);
    let killed_meanwhile = async {
        cluster.stop_server_immediately(server).await?;
        Stage::last(AWAY).await;
        cluster.kill(user).await?;
        cluster.launch(user)?;
        Stage::last(AWAY).await;
        cluster.start_server(server).await
    };
    stage
        .fault(
            "PostgreSQL: away, and the service that writes to it killed meanwhile",
            name,
            killed_meanwhile,
        )
        .await?;

    let terminated = terminate_backends(pool(&cluster, server));
    stage
        .fault(
            "PostgreSQL: random backends terminated each second",
            name,
            terminated,
        )
        .await?;
    let frozen = async {
        cluster.pause_server(server)?;
        Stage::last(DISTURBED).await;
        cluster.resume_server(server)
    };
    stage
        .fault("PostgreSQL: SIGSTOP of the postmaster for 10 s", name, frozen)
        .await?;
    if server == Server::WriteModel {
        stage
            .fault(
                "PostgreSQL: the total locked for 20 s",
                name,
                lock_total(pool(&cluster, server)),
            )
            .await?;
    }
    let used_up = use_connections_up(address(&cluster, server));
    stage
        .fault("PostgreSQL: connections used up for 10 s", name, used_up)
        .await
}

fn user_of(server: Server) -> Service {
    match server {
        Server::ReadModel => Service::ReadModelSync,
        _ => Service::CreateBuyOrder,
    }
}

fn pool(cluster: &Cluster, server: Server) -> &PgPool {
    match server {
        Server::ReadModel => cluster.read_model(),
        _ => cluster.write_model(),
    }
}

fn address(cluster: &Cluster, server: Server) -> &DatabaseAddress {
    match server {
        Server::ReadModel => &cluster.addresses().read_model,
        _ => &cluster.addresses().write_model,
    }
}

async fn terminate_backends(pool: &PgPool) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < DISTURBED {
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5",
        )
        .execute(pool)
        .await?;
        Stage::last(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn lock_total(pool: &PgPool) -> anyhow::Result<()> {
    let mut transaction = lock_running_total(pool).await?;
    // It sleeps in the server: the watcher reports connections that are idle in a transaction.
    sqlx::query("SELECT pg_sleep($1)")
        .bind(LOCKED.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.rollback().await?)
}

/// Takes every connection that the server gives, for as long as the fault lasts.
async fn use_connections_up(address: &DatabaseAddress) -> anyhow::Result<()> {
    let options = address.options();
    let mut taken: Vec<PgConnection> = Vec::new();
    let mut used_up_since = None::<Instant>;
    while used_up_since.is_none_or(|since| since.elapsed() < DISTURBED) {
        match options.connect().await {
            Ok(connection) => taken.push(connection),
            Err(sqlx::Error::Database(refusal))
                if refusal.code().as_deref() == Some(TOO_MANY_CONNECTIONS) =>
            {
                used_up_since.get_or_insert_with(Instant::now);
                Stage::last(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for connection in taken {
        connection.close().await?;
    }
    Ok(())
}
