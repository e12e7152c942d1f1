//! How the services do.

use super::{Depths, ReplicaState, Station, StationState, highest};
use crate::help;
use crate::peers::{Readiness, Replica};
use crate::rates::Rates;

/// A projection lags by milliseconds.
const LAG_S: f64 = 10.0;

/// What any service says of itself.
fn service(name: &'static str, replicas: &[Replica]) -> Station {
    let mut station = Station::new(name);
    station.replicas = replicas.iter().map(replica).collect();
    if station
        .replicas
        .iter()
        .all(|replica| replica.state == StationState::Away)
    {
        station.add_problem(format!("{name} does not answer"), help::NOT_READY);
        station.state = StationState::Away;
        return station;
    }
    for replica in replicas {
        match &replica.answers {
            None => station.add_problem(format!("{} does not answer", replica.address), help::NOT_READY),
            Some(answers) => match &answers.readiness {
                Readiness::Ready => {}
                Readiness::NotReady(faults) => {
                    for fault in faults {
                        station.add_problem(fault.as_str(), help::of_dependency(fault));
                    }
                }
                Readiness::Unknown => {
                    let text = format!("{} does not say whether it is ready", replica.address);
                    station.add_problem(text, help::NOT_READY);
                }
            },
        }
    }
    station
}

fn replica(replica: &Replica) -> ReplicaState {
    let (state, text) = match replica.answers.as_ref().map(|answers| &answers.readiness) {
        None => (StationState::Away, "does not answer".to_owned()),
        Some(Readiness::Ready) => (StationState::Well, String::new()),
        Some(Readiness::NotReady(faults)) => (StationState::Trouble, faults.join(", ")),
        Some(Readiness::Unknown) => (
            StationState::Trouble,
            "does not say whether it is ready".to_owned(),
        ),
    };
    ReplicaState {
        address: replica.address,
        state,
        text,
    }
}

pub(super) fn migration(replicas: &[Replica]) -> Station {
    service("migration", replicas)
}

pub(super) fn btc_price(replicas: &[Replica], rates: &Rates) -> Station {
    let mut station = service("btc_price", replicas);
    let outcomes = rates.recent("coinbase_requests_total");
    if outcomes.contains_key("deviates") {
        station.add_problem(
            "a price is refused: it is far from the last one",
            help::PRICE_DEVIATES,
        );
    }
    if outcomes.keys().any(|outcome| outcome != "price") && !outcomes.contains_key("price") {
        station.add_problem("Coinbase gives no prices", help::NO_PRICES);
    }
    station.add_figure(
        "quotes",
        rates.labelled_per_s("http_requests_total", "/buy"),
        "/s",
    );
    station.add_figure("asked for", rates.per_s("coinbase_requests_total"), "/s");
    station
}

pub(super) fn create_buy_order(replicas: &[Replica], rates: &Rates) -> Station {
    let mut station = service("create_buy_order", replicas);
    let refused = rates.recent("buy_orders_refused_total");
    if refused.contains_key("over_cap")
        || highest(replicas, |metrics| metrics.number("order_book_left_btc")).is_some_and(|left| left <= 0.0)
    {
        station.add_problem("the book is full", help::BOOK_FULL);
    }
    if refused.contains_key("no_price") {
        station.add_problem("orders are refused: there is no price", help::NO_PRICES);
    }
    if ["not_read", "not_written", "busy", "timed_out"]
        .iter()
        .any(|reason| refused.contains_key(*reason))
    {
        station.add_problem(
            "orders are refused: the write model does not take them",
            help::WRITE_MODEL,
        );
    }
    if highest(replicas, |metrics| metrics.number("order_currencies_missing"))
        .is_some_and(|missing| missing > 0.0)
    {
        station.add_problem(
            "the write model does not have all currencies yet",
            help::OLD_SCHEMA,
        );
    }
    station.add_figure("accepted", rates.per_s("buy_orders_created_total"), "/s");
    station.add_figure("repeated", rates.per_s("buy_orders_replayed_total"), "/s");
    station.add_figure("refused", rates.per_s("buy_orders_refused_total"), "/s");
    station
}

pub(super) fn read_model_sync(replicas: &[Replica], rates: &Rates, depths: &Depths) -> Station {
    let mut station = service("read_model_sync", replicas);
    if let Some(letters) = depths.dead_letters.filter(|letters| *letters > 0.0) {
        station.add_problem(format!("dead letters: {letters}"), help::DEAD_LETTERS);
    }
    if highest(replicas, |metrics| metrics.number("dead_letters_held")).is_some_and(|held| held > 0.0) {
        station.add_problem("the broker refuses dead letters", help::LETTERS_REFUSED);
    }
    let lag = |quantile| rates.quantile("projection_lag_seconds_bucket", quantile);
    if let Some(lag_s) = lag(0.99).filter(|lag_s| *lag_s > LAG_S) {
        station.add_problem(format!("the projection lags by {lag_s:.0} s"), help::LAG);
    }
    let projected = rates.labelled_per_s("projection_deliveries_total", "applied");
    station.add_figure("projected", projected, "/s");
    station.add_figure("lag p50", lag(0.5), "s");
    station.add_figure("lag p99", lag(0.99), "s");
    station
}

pub(super) fn fetch_buy_orders(replicas: &[Replica], rates: &Rates) -> Station {
    let mut station = service("fetch_buy_orders", replicas);
    station.add_figure("pages", rates.per_s("buy_order_pages_served_total"), "/s");
    station
}
