//! Tests of the judgement.

use std::time::{Duration, Instant};

use super::*;
use crate::exposition::Exposition;
use crate::peers::{Answers, Readiness};

fn replica(port: u16, readiness: Readiness, metrics: &str) -> Replica {
    Replica {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        answers: Some(Answers {
            metrics: Some(Exposition::read(metrics.as_bytes())),
            readiness,
            dead_letters: Vec::new(),
        }),
    }
}

fn away(port: u16) -> Replica {
    Replica {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        answers: None,
    }
}

fn not_ready(faults: &[&str]) -> Readiness {
    Readiness::NotReady(faults.iter().map(|fault| (*fault).to_owned()).collect())
}

const RELAY: &str = "broker_connected{connection=\"create_buy_order outbox relay\"} 1\nbroker_blocked{connection=\"create_buy_order outbox relay\"} 0\n\
    outbox_events 0\noutbox_oldest_age_seconds 0\norder_book_left_btc 88\n";
const LISTENER: &str = "broker_connected{connection=\"read_model_sync\"} 1\nqueue_messages{queue=\"buy_order\"} 2\n\
    queue_messages{queue=\"buy_order.dead_letter\"} 0\ndead_letters_held 0\n";
const DECLARER: &str = "broker_connected{connection=\"migration\"} 1\n";

fn all_well() -> PerService<Vec<Replica>> {
    let ready = |port, metrics| vec![replica(port, Readiness::Ready, metrics)];
    PerService {
        migration: ready(1, DECLARER),
        btc_price: ready(2, ""),
        create_buy_order: ready(3, RELAY),
        read_model_sync: ready(4, LISTENER),
        fetch_buy_orders: ready(5, ""),
    }
}

fn station(read: &PerService<Vec<Replica>>, name: &str) -> Station {
    let mut stations = judge(read, &Rates::default());
    let index = stations.iter().position(|station| station.name == name).unwrap();
    stations.swap_remove(index)
}

/// State, and each problem with its help.
fn judged(
    read: &PerService<Vec<Replica>>,
    name: &str,
) -> (StationState, Vec<(String, Option<&'static str>)>) {
    let station = station(read, name);
    let problems = station.problems.into_iter();
    (
        station.state,
        problems.map(|problem| (problem.text, problem.help)).collect(),
    )
}

fn problem(text: &str, help: &'static str) -> Vec<(String, Option<&'static str>)> {
    vec![(text.to_owned(), Some(help))]
}

#[test]
fn while_all_is_well_every_station_is_there_and_well() {
    let stations = judge(&all_well(), &Rates::default());
    let names: Vec<&str> = stations.iter().map(|station| station.name).collect();
    assert_eq!(
        names,
        [
            "btc_price",
            "create_buy_order",
            "write_model",
            "outbox",
            "queue",
            "read_model_sync",
            "read_model",
            "fetch_buy_orders",
            "migration"
        ]
    );
    for station in &stations {
        assert_eq!(
            (station.state, station.problems.len()),
            (StationState::Well, 0),
            "{station:?}"
        );
        assert!(station.figures.len() <= 3);
    }
}

#[test]
fn a_service_is_away_if_none_of_its_replicas_answers_and_in_trouble_if_some_do() {
    let mut read = all_well();
    for replicas in [vec![], vec![away(2)], vec![away(2), away(7)]] {
        read.btc_price = replicas;
        let text = problem("btc_price does not answer", help::NOT_READY);
        assert_eq!(judged(&read, "btc_price"), (StationState::Away, text));
    }
    read.btc_price = vec![away(2), replica(7, Readiness::Ready, "")];
    let text = problem("127.0.0.1:2 does not answer", help::NOT_READY);
    assert_eq!(judged(&read, "btc_price"), (StationState::Trouble, text));
    let states: Vec<_> = station(&read, "btc_price").replicas;
    assert_eq!(
        states.iter().map(|replica| replica.state).collect::<Vec<_>>(),
        [StationState::Away, StationState::Well]
    );
}

#[test]
fn a_model_is_away_if_all_who_need_it_say_so() {
    let mut read = all_well();
    let faults = not_ready(&["write_model is away"]);
    read.create_buy_order = vec![replica(3, faults.clone(), RELAY)];
    let text = problem("create_buy_order says: write_model is away", help::WRITE_MODEL);
    assert_eq!(judged(&read, "write_model"), (StationState::Trouble, text));
    read.migration = vec![replica(1, faults, DECLARER)];
    let text = problem("write_model is away", help::WRITE_MODEL);
    assert_eq!(judged(&read, "write_model"), (StationState::Away, text.clone()));
    assert_eq!(judged(&read, "outbox").0, StationState::Away);
    assert_eq!(judged(&read, "create_buy_order"), (StationState::Trouble, text));
    assert_eq!(judged(&read, "read_model").0, StationState::Well);
}

#[test]
fn a_model_that_is_not_away_may_be_in_trouble_and_what_nobody_needs_is_unknown() {
    let mut read = all_well();
    read.migration = vec![away(1)];
    read.create_buy_order = vec![replica(3, not_ready(&["write_model is read-only"]), RELAY)];
    let text = problem(
        "create_buy_order says: write_model is read-only",
        help::WRITE_MODEL,
    );
    assert_eq!(judged(&read, "write_model"), (StationState::Trouble, text));
    read.create_buy_order = vec![away(3)];
    assert_eq!(judged(&read, "write_model").0, StationState::Unknown);
    assert_eq!(judged(&read, "outbox").0, StationState::Unknown);
    // A service that answers, and does not say in time whether it is ready.
    read.create_buy_order = vec![replica(3, Readiness::Unknown, RELAY)];
    assert_eq!(judged(&read, "write_model").0, StationState::Unknown);
    assert_eq!(judged(&read, "create_buy_order").0, StationState::Trouble);
}

#[test]
fn the_queue_is_well_only_if_every_connection_is_up() {
    let mut read = all_well();
    let down = |metrics: &str| metrics.replacen("} 1", "} 0", 1);
    read.create_buy_order
        .push(replica(8, Readiness::Ready, &down(RELAY)));
    let text = problem(
        "create_buy_order is not connected to the broker",
        help::BROKER_AWAY,
    );
    assert_eq!(judged(&read, "queue"), (StationState::Trouble, text));

    let listener = not_ready(&["broker is away"]);
    read.create_buy_order = vec![replica(3, Readiness::Ready, &down(RELAY))];
    read.read_model_sync = vec![replica(4, listener, &down(LISTENER))];
    read.migration = vec![replica(1, Readiness::Ready, &down(DECLARER))];
    let text = problem("no service is connected to the broker", help::BROKER_AWAY);
    assert_eq!(judged(&read, "queue"), (StationState::Away, text));
    let text = problem("broker is away", help::BROKER_AWAY);
    assert_eq!(judged(&read, "read_model_sync"), (StationState::Trouble, text));

    for replicas in [
        &mut read.create_buy_order,
        &mut read.read_model_sync,
        &mut read.migration,
    ] {
        *replicas = vec![away(9)];
    }
    assert_eq!(judged(&read, "queue").0, StationState::Unknown);
}

#[test]
fn a_broker_that_blocks_and_a_queue_with_other_options_are_trouble() {
    let mut read = all_well();
    let blocked = RELAY.replace(
        "broker_blocked{connection=\"create_buy_order outbox relay\"} 0",
        "broker_blocked{connection=\"x\"} 1",
    );
    read.create_buy_order = vec![replica(3, Readiness::Ready, &blocked)];
    let text = problem(
        "the broker blocks create_buy_order: its memory or disk is low",
        help::BROKER_BLOCKED,
    );
    assert_eq!(judged(&read, "queue"), (StationState::Trouble, text));

    let mut read = all_well();
    let declared = format!("{DECLARER}broker_declared_otherwise{{connection=\"migration\"}} 1\n");
    read.migration = vec![replica(1, Readiness::Ready, &declared)];
    let text = problem(
        "an exchange or a queue of our name exists with other options",
        help::DECLARED_OTHERWISE,
    );
    assert_eq!(judged(&read, "queue"), (StationState::Trouble, text));
}

#[test]
fn what_waits_for_long_or_for_an_operator_is_trouble() {
    let mut read = all_well();
    let old = RELAY.replace("age_seconds 0", "age_seconds 61.4");
    read.create_buy_order = vec![replica(3, Readiness::Ready, &old)];
    let text = problem("the oldest message has waited for 61 s", help::OUTBOX);
    assert_eq!(judged(&read, "outbox"), (StationState::Trouble, text));

    let letters = LISTENER.replace("dead_letter\"} 0", "dead_letter\"} 3");
    read.read_model_sync = vec![replica(4, Readiness::Ready, &letters)];
    let text = problem("dead letters: 3", help::DEAD_LETTERS);
    assert_eq!(judged(&read, "read_model_sync"), (StationState::Trouble, text));
    assert_eq!(judged(&read, "queue").0, StationState::Well);

    let held = LISTENER.replace("held 0", "held 1");
    read.read_model_sync = vec![replica(4, Readiness::Ready, &held)];
    let text = problem("the broker refuses dead letters", help::LETTERS_REFUSED);
    assert_eq!(judged(&read, "read_model_sync"), (StationState::Trouble, text));
}

#[test]
fn a_full_book_and_missing_currencies_are_trouble() {
    let mut read = all_well();
    for (metrics, text, help) in [
        (
            RELAY.replace("left_btc 88", "left_btc 0"),
            "the book is full",
            help::BOOK_FULL,
        ),
        (
            format!("{RELAY}order_currencies_missing 1\n"),
            "the write model does not have all currencies yet",
            help::OLD_SCHEMA,
        ),
    ] {
        read.create_buy_order = vec![replica(3, Readiness::Ready, &metrics)];
        let judged = judged(&read, "create_buy_order");
        assert_eq!(judged, (StationState::Trouble, problem(text, help)));
    }
}

#[test]
fn what_was_refused_lately_is_trouble_of_the_service_that_refuses() {
    let lately = |before: &str, after: &str| {
        let mut rates = Rates::default();
        let now = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for (second, text) in [(0, before), (1, after)] {
            let at = now + Duration::from_secs(second);
            rates.observe(at, [(address, &Exposition::read(text.as_bytes()))]);
        }
        rates
    };
    for (series, name, text, help) in [
        (
            "buy_orders_refused_total{reason=\"no_price\"}",
            "create_buy_order",
            "orders are refused: there is no price",
            help::NO_PRICES,
        ),
        (
            "buy_orders_refused_total{reason=\"over_cap\"}",
            "create_buy_order",
            "the book is full",
            help::BOOK_FULL,
        ),
        (
            "buy_orders_refused_total{reason=\"not_written\"}",
            "create_buy_order",
            "orders are refused: the write model does not take them",
            help::WRITE_MODEL,
        ),
        (
            "coinbase_requests_total{outcome=\"timeout\"}",
            "btc_price",
            "Coinbase gives no prices",
            help::NO_PRICES,
        ),
    ] {
        let rates = lately(&format!("{series} 1\n"), &format!("{series} 2\n"));
        let stations = judge(&all_well(), &rates);
        let station = stations.iter().find(|station| station.name == name).unwrap();
        let wanted = StationProblem {
            text: text.to_owned(),
            help: Some(help),
        };
        assert_eq!(station.problems, [wanted]);
        assert_eq!(station.state, StationState::Trouble);
        let rates = lately(&format!("{series} 2\n"), &format!("{series} 2\n"));
        let stations = judge(&all_well(), &rates);
        assert!(stations.iter().all(|station| station.state == StationState::Well));
    }
}
