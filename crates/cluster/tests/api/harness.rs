//! `Cluster`, as the tests of the services use it.

use std::time::Duration;

use anyhow::Context as _;
use cluster::{Behaviour, Cluster, Options, Server, Service, wait_until};
use serde_json::{Value, json};
use sqlx::Connection as _;

const LIMIT: Duration = Duration::from_secs(30);

async fn put_order(cluster: &Cluster) -> anyhow::Result<reqwest::Response> {
    Ok(cluster
        .put_order(&cluster::new_order("USD", "10.00"))
        .send()
        .await?)
}

async fn orders(cluster: &Cluster) -> anyhow::Result<usize> {
    let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
    let page: Value = cluster
        .http()
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(page["rows"].as_array().context("no rows")?.len())
}

#[tokio::test]
async fn an_order_goes_from_put_to_get_and_the_cluster_leaves_nothing_behind() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    assert_eq!(put_order(&cluster).await?.status(), 200);
    wait_until("the order is in the page", LIMIT, async || {
        Ok(orders(&cluster).await? == 1)
    })
    .await?;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order")
        .fetch_one(cluster.write_model())
        .await?;
    assert_eq!(stored, 1);
    assert_eq!(cluster.prices().requests(), 1);
    wait_until("its event is read", LIMIT, async || {
        let events = cluster.logs(Service::CreateBuyOrder);
        Ok(events.iter().any(|event| event["event"] == "buy_order_created"))
    })
    .await?;

    let addresses = cluster.addresses().clone();
    let urls = Service::OF_ORDERS.map(|service| cluster.url(service));
    let client = cluster.http();
    drop(cluster);
    for url in urls {
        assert!(client.get(&url).send().await.is_err(), "{url} still answers");
    }
    for database in [&addresses.write_model, &addresses.read_model] {
        assert!(
            sqlx::PgConnection::connect_with(&database.options())
                .await
                .is_err(),
            "{} is left",
            database.name
        );
    }
    let broker = &addresses.broker;
    let vhost = client
        .get(broker.api("vhosts/{vhost}"))
        .basic_auth(&broker.user, Some(&broker.password));
    assert_eq!(vhost.send().await?.status(), 404);
    Ok(())
}

#[tokio::test]
async fn services_can_be_stopped_killed_paused_multiplied_and_started_again() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[Service::FetchBuyOrders])).await?;
    let url = cluster.url(Service::FetchBuyOrders);
    let client = cluster.http();
    let answers = async |url: &str| {
        let request = client
            .get(format!("{url}/healthcheck"))
            .timeout(Duration::from_secs(2));
        request.send().await.is_ok()
    };

    assert!(cluster.stop(Service::FetchBuyOrders).await?.success());
    assert!(!answers(&url).await);
    cluster.start_service(Service::FetchBuyOrders).await?;
    assert_eq!(cluster.url(Service::FetchBuyOrders), url);

    assert!(!cluster.kill(Service::FetchBuyOrders).await?.success());
    assert!(!answers(&url).await);
    cluster.start_service(Service::FetchBuyOrders).await?;

    cluster.pause(Service::FetchBuyOrders)?;
    assert!(!answers(&url).await);
    cluster.resume(Service::FetchBuyOrders)?;
    wait_until("it answers again", LIMIT, async || Ok(answers(&url).await)).await?;

    let extra = cluster.start_extra(Service::FetchBuyOrders).await?;
    assert!(extra != url && answers(&extra).await && answers(&url).await);
    assert!(cluster.stop(&extra).await?.success());
    assert!(!answers(&extra).await);
    Ok(())
}

#[tokio::test]
async fn a_service_that_ends_at_once_is_reported_with_its_last_lines() -> anyhow::Result<()> {
    let options = Options::only(&[Service::BtcPrice]).with_env(Service::BtcPrice, "CB_PORT", "many");
    let message = format!("{:#}", Cluster::start(options).await.err().context("it started")?);
    assert!(
        message.contains("btc_price ended") && message.contains("CB_PORT"),
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn own_servers_can_be_stopped_killed_and_started_again_with_their_data() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default().with_own_servers()).await?;
    assert_eq!(put_order(&cluster).await?.status(), 200);
    wait_until("the order is in the page", LIMIT, async || {
        Ok(orders(&cluster).await? == 1)
    })
    .await?;

    cluster.kill_broker().await?;
    assert_eq!(put_order(&cluster).await?.status(), 200);
    cluster.start_broker().await?;
    wait_until("the second order is in the page", LIMIT, async || {
        Ok(orders(&cluster).await? == 2)
    })
    .await
    .with_context(|| cluster.last_lines())?;

    cluster.stop_broker().await?;
    cluster.start_broker().await?;

    cluster.kill_server(Server::ReadModel).await?;
    assert!(orders(&cluster).await.is_err());
    cluster.start_server(Server::ReadModel).await?;
    wait_until("the pages are back", LIMIT, async || {
        Ok(orders(&cluster).await? == 2)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn durable_servers_wait_for_the_disk_and_take_parameters() -> anyhow::Result<()> {
    let options = Options::servers_only()
        .with_durable_servers()
        .with_database_setting("work_mem", "7MB")
        .with_database_setting("shared_buffers", "32MB");
    let cluster = Cluster::start(options).await?;
    for pool in [cluster.write_model(), cluster.read_model()] {
        let settings = "SELECT current_setting(unnest(ARRAY['fsync', 'full_page_writes', 'synchronous_commit', 'work_mem', 'shared_buffers']))";
        let values: Vec<String> = sqlx::query_scalar(settings).fetch_all(pool).await?;
        assert_eq!(values, ["on", "on", "on", "7MB", "32MB"]);
    }
    for server in [Server::WriteModel, Server::ReadModel, Server::Broker] {
        assert!(cluster.server_pid(server).is_some(), "{server:?}");
    }
    let another = cluster.another_write_model().await?.options();
    let mut another = sqlx::PgConnection::connect_with(&another).await?;
    let total = "SELECT btc_amount::text FROM buy_order_running_total";
    let total: String = sqlx::query_scalar(total).fetch_one(&mut another).await?;
    assert_eq!(total, "0.00000000");
    Ok(())
}

#[tokio::test]
async fn the_simulator_faults_as_it_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let prices = cluster.prices();
    let url = format!("http://127.0.0.1:{}/v2/prices/buy?currency=EUR", prices.port());
    let ask = async || {
        cluster
            .http()
            .get(&url)
            .timeout(Duration::from_secs(1))
            .send()
            .await
    };

    let price: Value = ask().await?.json().await?;
    assert_eq!(
        price,
        json!({"data": {"base": "BTC", "currency": "EUR", "amount": "41191.91"}})
    );
    prices.set_rate("EUR", "1e5");
    let price: Value = ask().await?.json().await?;
    assert_eq!(price["data"]["amount"], "1e5");

    prices.answer_with(Behaviour::RetryAfter(429, 7));
    let answer = ask().await?;
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["retry-after"].to_str()?
        ),
        (429, "7")
    );
    prices.answer_with(Behaviour::Redirect);
    let answer = ask().await?;
    assert_eq!(
        answer.headers()["location"].to_str()?,
        "/v2/prices/redirected/buy?currency=EUR"
    );
    prices.answer_with(Behaviour::Oversize);
    assert!(ask().await?.bytes().await?.len() > 1_000_000);
    prices.answer_with(Behaviour::WrongCurrency);
    let price: Value = ask().await?.json().await?;
    assert_eq!(price["data"]["currency"], "USD");
    prices.answer_with(Behaviour::Hang);
    assert!(ask().await.is_err_and(|error| error.is_timeout()));
    assert_eq!(prices.requests(), 7);
    Ok(())
}
