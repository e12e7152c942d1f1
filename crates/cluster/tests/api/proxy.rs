//! `TcpProxy` between real peers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cluster::{Cluster, Link, Options, TcpProxy, Traffic, wait_until};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);
/// Long enough for everything that can arrive to arrive.
const MOMENT: Duration = Duration::from_millis(500);

/// A database and a proxy in front of it.
struct Setting {
    cluster: Cluster,
    proxy: TcpProxy,
    options: PgConnectOptions,
}

impl Setting {
    async fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::start(Options::servers_only()).await?;
        let database = &cluster.addresses().write_model;
        let proxy = TcpProxy::start(&database.host, database.port)?;
        let options = database.options().port(proxy.port());
        sqlx::query("CREATE TABLE entry (id int)")
            .execute(cluster.write_model())
            .await?;
        Ok(Self {
            cluster,
            proxy,
            options,
        })
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(timeout(LIMIT, PgConnection::connect_with(&self.options)).await??)
    }

    async fn entries(&self) -> anyhow::Result<i64> {
        let count = sqlx::query_scalar("SELECT count(*) FROM entry");
        Ok(count.fetch_one(self.cluster.write_model()).await?)
    }
}

async fn add(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // A single message, which takes effect when it reaches the server.
    let insert = sqlx::raw_sql("INSERT INTO entry VALUES (1)").execute(connection);
    insert.await.map(drop)
}

fn io_error(error: &sqlx::Error) -> Option<std::io::ErrorKind> {
    match error {
        sqlx::Error::Io(error) => Some(error.kind()),
        _ => None,
    }
}

#[tokio::test]
async fn connections_are_refused_or_reset_and_pass_again() -> anyhow::Result<()> {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    let setting = Setting::new().await?;
    let mut open = setting.connect().await?;
    assert_eq!(setting.proxy.connections(), 1);
    for (traffic, expected) in [
        (Traffic::Refuse, ConnectionRefused),
        (Traffic::Reset, ConnectionReset),
    ] {
        setting.proxy.set(traffic.clone());
        assert_eq!(setting.proxy.connections(), 0);
        let error = add(&mut open).await.err().context("it passed")?;
        assert!(io_error(&error).is_some(), "{error}");
        let error = PgConnection::connect_with(&setting.options).await;
        let error = error.err().context("it connected")?;
        assert_eq!(io_error(&error), Some(expected), "{traffic:?}: {error}");

        setting.proxy.set(Traffic::Pass);
        open = setting.connect().await?;
        add(&mut open).await?;
    }
    assert_eq!(setting.entries().await?, 2);
    open.close().await?;
    wait_until("the end of a connection is passed on", LIMIT, async || {
        Ok(setting.proxy.connections() == 0)
    })
    .await
}

#[tokio::test]
async fn what_is_dropped_arrives_after_the_healing() -> anyhow::Result<()> {
    let setting = Setting::new().await?;
    for (traffic, reaches_server) in [
        (Traffic::DropToServer, false),
        (Traffic::DropToClient, true),
        (Traffic::DropBoth, false),
    ] {
        let before = setting.entries().await?;
        let mut connection = setting.connect().await?;
        setting.proxy.set(traffic.clone());
        let mut work = Box::pin(add(&mut connection));
        assert!(
            timeout(MOMENT, &mut work).await.is_err(),
            "{traffic:?}: an answer"
        );
        let there = setting.entries().await? == before + 1;
        assert_eq!(there, reaches_server, "{traffic:?}");
        let mut newcomer = Box::pin(PgConnection::connect_with(&setting.options));
        assert!(
            timeout(MOMENT, &mut newcomer).await.is_err(),
            "{traffic:?}: a greeting"
        );
        assert_eq!(setting.proxy.connections(), 2, "{traffic:?}: accepted");

        setting.proxy.set(Traffic::Pass);
        timeout(LIMIT, work).await??;
        timeout(LIMIT, newcomer).await??.close().await?;
        assert_eq!(setting.entries().await?, before + 1);
        connection.close().await?;
        wait_until("all are closed", LIMIT, async || {
            Ok(setting.proxy.connections() == 0)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn open_connections_fall_silent_for_ever_while_new_ones_pass() -> anyhow::Result<()> {
    let setting = Setting::new().await?;
    let mut old = setting.connect().await?;
    let old_session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut old)
        .await?;
    let goes_on = async || {
        let question = sqlx::query("SELECT FROM pg_stat_activity WHERE pid = $1").bind(old_session);
        let session = question.fetch_optional(setting.cluster.write_model()).await?;
        anyhow::Ok(session.is_some())
    };
    assert_eq!(setting.proxy.silence_open(), 1);
    let mut new = setting.connect().await?;
    add(&mut new).await?;
    assert!(timeout(MOMENT, add(&mut old)).await.is_err(), "an answer");
    // The traffic that was set before no longer applies to them.
    setting.proxy.set(Traffic::Pass);
    drop(old);
    add(&mut new).await?;
    assert_eq!(setting.entries().await?, 2);
    assert!(goes_on().await?, "the server was told of the end of its client");

    assert_eq!(
        setting.proxy.silence_open(),
        1,
        "the silent one is not counted again"
    );
    setting.proxy.set(Traffic::Reset);
    assert_eq!(setting.proxy.connections(), 0);
    wait_until("the server sees the reset", LIMIT, async || Ok(!goes_on().await?)).await
}

#[tokio::test]
async fn traffic_is_late_or_slow_as_set() -> anyhow::Result<()> {
    let setting = Setting::new().await?;
    let mut connection = setting.connect().await?;
    setting.proxy.set(Traffic::Latency(Duration::from_millis(150)));
    let started = Instant::now();
    connection.ping().await?;
    assert!(started.elapsed() >= Duration::from_millis(300));

    setting.proxy.set(Traffic::Throttle(20_000));
    let started = Instant::now();
    let text: String = sqlx::query_scalar("SELECT repeat('x', 20000)")
        .fetch_one(&mut connection)
        .await?;
    assert_eq!(text.len(), 20_000);
    assert!(started.elapsed() >= Duration::from_millis(900));

    setting.proxy.set(Traffic::Pass);
    let started = Instant::now();
    let text: String = sqlx::query_scalar("SELECT repeat('x', 3000000)")
        .fetch_one(&mut connection)
        .await?;
    assert_eq!(text.len(), 3_000_000);
    assert!(started.elapsed() < Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn the_answer_to_a_commit_is_swallowed_and_the_row_is_there() -> anyhow::Result<()> {
    let setting = Setting::new().await?;
    // As the services connect: with TLS if the server offers it, which ours does not.
    let options = setting
        .options
        .clone()
        .ssl_mode(sqlx::postgres::PgSslMode::Prefer);
    let mut connection = PgConnection::connect_with(&options).await?;
    let mut transaction = connection.begin().await?;
    add(&mut transaction).await?;
    transaction.commit().await?;

    setting.proxy.set(Traffic::SwallowCommitAnswer);
    let mut transaction = connection.begin().await?;
    add(&mut transaction).await?;
    assert_eq!(setting.entries().await?, 1);
    let error = transaction.commit().await.err().context("the commit answered")?;
    assert!(io_error(&error).is_some(), "{error}");
    assert_eq!(setting.entries().await?, 2);
    Ok(())
}

#[tokio::test]
async fn the_links_of_a_cluster_break_and_heal() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default().with_links(&Link::ALL)).await?;
    let put = async || {
        let order = cluster::new_order("USD", "1.00");
        anyhow::Ok(cluster.put_order(&order).send().await?.status())
    };
    assert_eq!(put().await?, 200);
    let projected = async |orders: i64| {
        wait_until("the orders are in the read model", LIMIT, async || {
            let count = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model");
            Ok(count.fetch_one(cluster.read_model()).await.unwrap_or(0) == orders)
        })
        .await
    };
    projected(1).await?;
    // The connections of migration to the databases end with its work.
    for link in Link::ALL.into_iter().filter(|link| {
        !matches!(
            link,
            Link::ToMigration
                | Link::MigrationToReadModel
                | Link::MigrationToWriteModel
                | Link::FetchBuyOrdersToReadModel
        )
    }) {
        if cluster.link(link)?.connections() == 0 {
            bail!("{} does not lead through its proxy", link.name());
        }
    }
    cluster
        .link(Link::CreateBuyOrderToWriteModel)?
        .set(Traffic::Refuse);
    assert_eq!(put().await?, 503);
    cluster.link(Link::CreateBuyOrderToWriteModel)?.set(Traffic::Pass);
    cluster.link(Link::ReadModelSyncToBroker)?.set(Traffic::Reset);
    assert_eq!(put().await?, 200);
    cluster.link(Link::ReadModelSyncToBroker)?.set(Traffic::Pass);
    projected(2).await
}
