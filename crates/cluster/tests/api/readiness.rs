//! `/livez` and `/readyz`: which service is not ready while which dependency is away.

use std::process::Command;
use std::time::{Duration, Instant};

use cluster::{Behaviour, Cluster, Options, PortLease, Server, Service, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn get(cluster: &Cluster, service: Service, path: &str) -> anyhow::Result<(u16, Value)> {
    let response = cluster.http().get(cluster.url(service) + path).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

async fn becomes(cluster: &Cluster, service: Service, expected: (u16, Value)) -> anyhow::Result<()> {
    wait_until(service.name(), LIMIT, async || {
        let found = get(cluster, service, "/readyz").await?;
        anyhow::ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(true)
    })
    .await
}

fn ready() -> (u16, Value) {
    (200, Value::Null)
}

fn away(detail: &str) -> (u16, Value) {
    (503, json!({ "detail": format!("not ready: {detail}") }))
}

#[tokio::test]
async fn operators_ask_on_a_port_of_their_own_where_there_is_one() -> anyhow::Result<()> {
    let lease = PortLease::take()?;
    let service = Service::FetchBuyOrders;
    let options = Options::default().with_env(service, "OPS_PORT", lease.port().to_string());
    let cluster = Cluster::start(options).await?;
    let (for_clients, for_operators) = (cluster.url(service), format!("http://127.0.0.1:{}", lease.port()));
    for (path, of_clients, of_operators) in [
        ("/healthcheck", 200, 404),
        ("/buy_orders", 200, 404),
        ("/docs/", 200, 404),
        ("/livez", 404, 200),
        ("/readyz", 404, 200),
        ("/metrics", 404, 200),
    ] {
        for (base, expected) in [(&for_clients, of_clients), (&for_operators, of_operators)] {
            let answer = cluster.http().get(format!("{base}{path}")).send().await?;
            assert_eq!(answer.status().as_u16(), expected, "{base}{path}");
            if expected == 404 {
                assert_eq!(answer.json::<Value>().await?, json!({"detail": "Not Found"}));
            }
        }
    }
    for probe in ["healthcheck", "readyz", "metrics"] {
        let mut own = Command::new(service.binary()?);
        let asked = own.arg(probe).envs(cluster.environment(service)?).output()?;
        assert!(asked.status.success(), "{probe}: {asked:?}");
    }
    Ok(())
}

#[test]
fn one_port_for_both_is_said_once() -> anyhow::Result<()> {
    let output = Command::new(Service::BtcPrice.binary()?)
        .env_clear()
        .envs([("SERVICE_PORT", "8080"), ("OPS_PORT", "8080")])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("OPS_PORT is that of SERVICE_PORT"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_service_is_unready_while_something_is_away_that_it_cannot_work_without() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    for service in Service::OF_ORDERS {
        assert_eq!(get(&cluster, service, "/livez").await?, (200, Value::Null));
        becomes(&cluster, service, ready()).await?;
    }
    use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};
    for (server, unready) in [
        (
            Server::WriteModel,
            &[
                (CreateBuyOrder, "write_model is away"),
                (Migration, "write_model is away"),
            ][..],
        ),
        (
            Server::ReadModel,
            &[
                (FetchBuyOrders, "read_model is away"),
                (ReadModelSync, "read_model is away"),
                (Migration, "read_model is away"),
            ][..],
        ),
        (
            Server::Broker,
            &[(ReadModelSync, "broker is away"), (Migration, "broker is away")][..],
        ),
    ] {
        cluster.stop_server(server).await?;
        for (service, detail) in unready {
            becomes(&cluster, *service, away(detail)).await?;
        }
        for service in Service::OF_ORDERS {
            assert_eq!(get(&cluster, service, "/livez").await?, (200, Value::Null));
            if !unready.iter().any(|(name, _)| *name == service) {
                assert_eq!(
                    get(&cluster, service, "/readyz").await?,
                    ready(),
                    "{service:?} without {server:?}"
                );
            }
        }
        cluster.start_server(server).await?;
        for (service, _) in unready {
            becomes(&cluster, *service, ready()).await?;
        }
    }
    let count = |event: &str| {
        let logged = cluster.logs(FetchBuyOrders);
        logged.iter().filter(|line| line["event"] == event).count()
    };
    wait_until("the last change is an event", LIMIT, async || {
        Ok(count("service_ready") > 0)
    })
    .await?;
    assert_eq!(
        (count("service_not_ready"), count("service_ready")),
        (1, 1),
        "one event a change"
    );

    // It is still ready: repeats are answered without a price, and errors are JSON, which is better than no replica at all.
    cluster.stop(BtcPrice).await?;
    assert_eq!(get(&cluster, CreateBuyOrder, "/readyz").await?, ready());
    Ok(())
}

#[tokio::test]
async fn on_read_only_databases_who_writes_is_not_ready_and_says_why() -> anyhow::Result<()> {
    use Service::{CreateBuyOrder, FetchBuyOrders, ReadModelSync};
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    let make_read_only = async |read_only: &'static str| {
        for pool in [cluster.write_model(), cluster.read_model()] {
            // Each statement by itself, outside of a transaction.
            sqlx::query(read_only).execute(pool).await?;
            sqlx::query("SELECT pg_reload_conf()").execute(pool).await?;
        }
        anyhow::Ok(())
    };
    make_read_only("ALTER SYSTEM SET default_transaction_read_only = on").await?;
    becomes(&cluster, CreateBuyOrder, away("write_model is read-only")).await?;
    becomes(&cluster, ReadModelSync, away("read_model is read-only")).await?;
    assert_eq!(
        get(&cluster, FetchBuyOrders, "/readyz").await?,
        ready(),
        "it only reads"
    );
    assert_eq!(get(&cluster, FetchBuyOrders, "/buy_orders").await?.0, 200);
    make_read_only("ALTER SYSTEM RESET default_transaction_read_only").await?;
    for service in [CreateBuyOrder, ReadModelSync] {
        becomes(&cluster, service, ready()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_database_that_hangs_makes_probes_slow_for_a_bounded_time_and_lets_none_pile_up()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders]).with_own_servers()).await?;
    let fetch = Service::FetchBuyOrders;
    // The kernel accepts connections for the frozen server, which never answers. The probes have no earlier connection.
    cluster.pause_server(Server::ReadModel)?;
    let begun = Instant::now();
    let probes = (0..50).map(|_| {
        let asked = cluster.http().get(cluster.url(fetch) + "/readyz").send();
        tokio::spawn(async move { asked.await.map(|answer| answer.status().as_u16()) })
    });
    let probes: Vec<_> = probes.collect();
    for probe in probes {
        assert_eq!(probe.await??, 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    cluster.resume_server(Server::ReadModel)?;
    becomes(&cluster, fetch, ready()).await
}

#[tokio::test]
async fn btc_price_is_judged_by_what_coinbase_answered_last_and_asks_nothing_for_a_probe()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::BtcPrice])).await?;
    let prices = Service::BtcPrice;
    assert_eq!(get(&cluster, prices, "/readyz").await?, ready());
    assert_eq!(cluster.prices().requests(), 0, "a probe asked");
    cluster.prices().answer_with(Behaviour::RetryAfter(429, 4));
    assert_eq!(get(&cluster, prices, "/buy?currency=USD").await?.0, 503);
    becomes(&cluster, prices, away("coinbase is away")).await?;
    let asked = cluster.prices().requests();
    cluster.prices().answer_with(Behaviour::Rates);
    // After the pause that Coinbase asked for, it must be ready again.
    becomes(&cluster, prices, ready()).await?;
    assert_eq!(cluster.prices().requests(), asked, "a probe asked");
    assert_eq!(get(&cluster, prices, "/buy?currency=USD").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn the_program_itself_asks_for_readiness_and_metrics() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::BtcPrice])).await?;
    let program = Service::BtcPrice.binary()?;
    let run = |argument: &str| {
        let mut command = Command::new(&program);
        command
            .env_clear()
            .envs(cluster.environment(Service::BtcPrice)?)
            .arg(argument);
        anyhow::Ok(command.output()?)
    };
    let ready = run("readyz")?;
    assert!(ready.status.success() && ready.stdout.is_empty(), "{ready:?}");
    let metrics = run("metrics")?;
    assert!(String::from_utf8(metrics.stdout)?.contains("coinbase_requests_total"));
    cluster.stop(Service::BtcPrice).await?;
    assert_eq!(run("readyz")?.status.code(), Some(1));
    Ok(())
}
