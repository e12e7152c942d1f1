//! What is away, and what comes back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use cluster::{Cluster, Link, Server, Service, Traffic, wait_until};
use serde_json::{Value, json};

use crate::support::{LIMIT, SHOWN_WITHIN, all_well, alone, state, station, station_is, with_console};

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

const NAMES: [&str; 9] = [
    "btc_price",
    "create_buy_order",
    "write_model",
    "outbox",
    "queue",
    "read_model_sync",
    "read_model",
    "fetch_buy_orders",
    "migration",
];

#[tokio::test]
async fn while_all_is_well_every_station_says_so_with_its_replica() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    let state = all_well(&cluster).await?;
    let stations = state["stations"].as_array().unwrap();
    let names: Vec<&str> = stations
        .iter()
        .filter_map(|station| station["name"].as_str())
        .collect();
    assert_eq!(names, NAMES);
    for service in Service::OF_ORDERS {
        let station = station(&state, service.name());
        let address = cluster.url(service).replace("http://", "");
        assert_eq!(
            station["replicas"],
            json!([{"address": address, "state": "well", "text": ""}])
        );
    }
    for station in stations {
        assert_eq!(station["problems"], json!([]));
    }
    // A book without orders has the whole cap left.
    assert_eq!(
        state["book"],
        json!({"total_btc": "0.00000000", "left_btc": "100.00000000"})
    );
    let point = &state["point"];
    for known in ["outbox", "outbox_age_s", "queue", "dead_letters"] {
        assert_eq!(point[known], 0.0, "{known}: {point}");
    }
    Ok(())
}

#[tokio::test]
async fn without_any_service_all_that_is_known_is_that_they_are_away() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let state = state(&cluster).await?;
    for name in NAMES {
        let station = station(&state, name);
        let is_service = Service::OF_ORDERS.iter().any(|service| service.name() == name);
        let wanted = if is_service { "away" } else { "unknown" };
        assert_eq!(station["state"], wanted, "{station}");
        assert_ne!(station["problems"], json!([]), "{station}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_broker_is_away_within_3_s_and_back_within_3_s_after_the_services_are() -> anyhow::Result<()>
{
    let cluster = Cluster::start(with_console().with_own_servers()).await?;
    all_well(&cluster).await?;
    cluster.stop_broker().await?;
    let queue = station_is(&cluster, "queue", "away", SHOWN_WITHIN).await?;
    assert_eq!(queue["problems"][0]["help"], "the-broker-is-away");
    let projector = station_is(&cluster, "read_model_sync", "trouble", SHOWN_WITHIN).await?;
    assert_eq!(
        projector["problems"][0],
        json!({"text": "broker is away", "help": "the-broker-is-away"})
    );

    cluster.start_broker().await?;
    wait_until("the services have connected again", LIMIT, async || {
        for service in [CreateBuyOrder, ReadModelSync, Migration] {
            let metrics = cluster.http().get(cluster.url(service) + "/metrics");
            let metrics = metrics.send().await?.text().await?;
            let mut connections = metrics
                .lines()
                .filter(|line| line.starts_with("broker_connected{"));
            ensure!(connections.all(|line| line.ends_with(" 1")), "{service:?} is not");
        }
        Ok(true)
    })
    .await?;
    station_is(&cluster, "queue", "well", SHOWN_WITHIN).await?;
    Ok(())
}

#[tokio::test]
async fn a_stopped_database_is_away_and_the_services_that_need_it_are_in_trouble() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console().with_own_servers()).await?;
    all_well(&cluster).await?;
    cluster.stop_server(Server::WriteModel).await?;
    let model = station_is(&cluster, "write_model", "away", LIMIT).await?;
    assert_eq!(
        model["problems"],
        json!([{"text": "write_model is away", "help": "the-write-model-is-away-full-or-slow"}])
    );
    let state = state(&cluster).await?;
    for (name, wanted) in [
        ("create_buy_order", "trouble"),
        ("migration", "trouble"),
        ("outbox", "away"),
        ("read_model", "well"),
        ("fetch_buy_orders", "well"),
    ] {
        assert_eq!(station(&state, name)["state"], wanted, "{name}");
    }
    cluster.start_server(Server::WriteModel).await?;
    all_well(&cluster).await?;
    Ok(())
}

#[tokio::test]
async fn a_database_that_hangs_does_not_make_its_services_seem_away() -> anyhow::Result<()> {
    const LINKS: [Link; 3] = [
        Link::ReadModelSyncToReadModel,
        Link::FetchBuyOrdersToReadModel,
        Link::MigrationToReadModel,
    ];
    let cluster = Cluster::start(with_console().with_links(&LINKS)).await?;
    all_well(&cluster).await?;
    let set = |traffic: Traffic| {
        LINKS
            .iter()
            .try_for_each(|link| cluster.link(*link).map(|proxy| proxy.set(traffic.clone())))
    };
    set(Traffic::DropBoth)?;
    station_is(&cluster, "read_model", "away", LIMIT).await?;
    for _ in 0..5 {
        let state = state(&cluster).await?;
        for service in [ReadModelSync, FetchBuyOrders, Migration] {
            let station = station(&state, service.name());
            assert_eq!(station["state"], "trouble", "{station}");
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    set(Traffic::Pass)?;
    all_well(&cluster).await?;
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_killed_or_frozen_is_away_within_3_s() -> anyhow::Result<()> {
    let cluster = Cluster::start(with_console()).await?;
    all_well(&cluster).await?;
    cluster.kill(FetchBuyOrders).await?;
    let station = station_is(&cluster, "fetch_buy_orders", "away", SHOWN_WITHIN).await?;
    assert_eq!(
        station["problems"],
        json!([{"text": "fetch_buy_orders does not answer", "help": "a-service-is-not-ready-or-down"}])
    );
    cluster.start_service(FetchBuyOrders).await?;
    station_is(&cluster, "fetch_buy_orders", "well", SHOWN_WITHIN).await?;

    cluster.pause(BtcPrice)?;
    let began = Instant::now();
    station_is(&cluster, "btc_price", "away", SHOWN_WITHIN).await?;
    ensure!(began.elapsed() < SHOWN_WITHIN, "{:?}", began.elapsed());
    cluster.resume(BtcPrice)?;
    station_is(&cluster, "btc_price", "well", SHOWN_WITHIN).await?;
    Ok(())
}

#[tokio::test]
async fn every_state_has_a_new_time() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    let mut events = crate::support::Events::of(&cluster).await?;
    let (name, history) = events.next().await?.unwrap();
    assert_eq!(name, "history");
    let mut points: Vec<Value> = history["points"].as_array().unwrap().clone();
    for _ in 0..3 {
        points.push(events.next_state().await?["point"].clone());
    }
    let times: Vec<f64> = points.iter().map(|point| point["at"].as_f64().unwrap()).collect();
    for pair in times.windows(2) {
        let step = pair[1] - pair[0];
        ensure!((0.9..2.5).contains(&step), "{times:?}");
    }
    // Another viewer gets what was before as history.
    let mut events = crate::support::Events::of(&cluster).await?;
    let (_, history) = events.next().await?.unwrap();
    let known = history["points"].as_array().unwrap();
    let last_known = known.last().unwrap();
    ensure!(
        known.len() >= points.len() - 1 && points.contains(last_known),
        "{history}"
    );
    Ok(())
}
