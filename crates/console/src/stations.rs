//! The judgement: what the services say, as the state of each station on an order's way.

mod broker;
mod models;
mod services;

use std::net::SocketAddr;

use serde::Serialize;
use utoipa::ToSchema;

use crate::help;
use crate::peers::Replica;
use crate::per_service::PerService;
use crate::rates::{Rates, rounded};

/// How a station does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StationState {
    /// Nothing is wrong.
    Well,
    /// It answers and is not ready, or something is wrong with it.
    Trouble,
    /// Nobody answers.
    Away,
    /// Nobody can tell.
    Unknown,
}

/// A part that an order passes, or that another part needs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Station {
    /// Of a service, or `write_model`, `outbox`, `queue`, `read_model`.
    pub(crate) name: &'static str,
    /// How it does.
    pub(crate) state: StationState,
    /// What is wrong with it.
    pub(crate) problems: Vec<StationProblem>,
    /// The processes of a service; none of what is no service.
    pub(crate) replicas: Vec<ReplicaState>,
    /// What to show, at most three.
    pub(crate) figures: Vec<Figure>,
}

/// Something that is wrong with a station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StationProblem {
    /// One sentence.
    pub(crate) text: String,
    /// Where `/operations` says what to do: the id of a heading.
    pub(crate) help: Option<&'static str>,
}

/// A process of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ReplicaState {
    /// Its address and port.
    #[schema(value_type = String, example = "172.18.0.5:8080")]
    pub(crate) address: SocketAddr,
    /// How it does.
    pub(crate) state: StationState,
    /// What is wrong with it; empty if nothing is.
    pub(crate) text: String,
}

/// A measurement of a station.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Figure {
    /// What is measured.
    pub(crate) name: &'static str,
    /// `null`: unknown.
    pub(crate) value: Option<f64>,
    /// Its unit; empty for a number of things.
    pub(crate) unit: &'static str,
}

impl Station {
    /// A station that is well.
    fn new(name: &'static str) -> Self {
        Self {
            name,
            state: StationState::Well,
            problems: Vec::new(),
            replicas: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds a problem. A station that was well is in trouble.
    fn add_problem(&mut self, text: impl Into<String>, help: &'static str) {
        let problem = StationProblem {
            text: text.into(),
            help: Some(help),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        if self.state == StationState::Well {
            self.state = StationState::Trouble;
        }
    }

    fn add_figure(&mut self, name: &'static str, value: Option<f64>, unit: &'static str) {
        let value = value.map(rounded);
        self.figures.push(Figure { name, value, unit });
    }

    /// Nobody can tell how it does, and why not.
    fn unknown(mut self, why: &str) -> Self {
        self.state = StationState::Unknown;
        self.problems.push(StationProblem {
            text: why.to_owned(),
            help: None,
        });
        self
    }
}

/// What is measured at once by several replicas or by none, and so has one value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Depths {
    /// Messages in the outbox.
    pub(crate) outbox: Option<f64>,
    /// Age of the oldest of them.
    pub(crate) outbox_age_s: Option<f64>,
    /// Messages in the queue.
    pub(crate) queue: Option<f64>,
    /// Messages in the dead-letter queue.
    pub(crate) dead_letters: Option<f64>,
}

impl Depths {
    /// The highest that any replica tells: they read the same at slightly different times.
    pub(crate) fn of(read: &PerService<Vec<Replica>>) -> Self {
        let queue = |name| {
            highest(&read.read_model_sync, |metrics| {
                metrics.labelled("queue_messages", "queue", name)
            })
        };
        let gauge = |name| highest(&read.create_buy_order, |metrics| metrics.number(name));
        Self {
            outbox: gauge("outbox_events"),
            outbox_age_s: gauge("outbox_oldest_age_seconds"),
            queue: queue("buy_order"),
            dead_letters: queue("buy_order.dead_letter"),
        }
    }
}

pub(crate) fn highest(
    replicas: &[Replica],
    value: impl Fn(&crate::exposition::Exposition) -> Option<f64>,
) -> Option<f64> {
    metrics(replicas).filter_map(value).max_by(f64::total_cmp)
}

/// The metrics of the replicas that show them.
pub(crate) fn metrics(replicas: &[Replica]) -> impl Iterator<Item = &crate::exposition::Exposition> {
    let answers = replicas.iter().filter_map(|replica| replica.answers.as_ref());
    answers.filter_map(|answers| answers.metrics.as_ref())
}

/// Every station, in the order of an order's way, then `migration`.
pub(crate) fn judge(read: &PerService<Vec<Replica>>, rates: &Rates) -> Vec<Station> {
    let depths = Depths::of(read);
    let write_model = models::write_model(read, rates);
    let outbox = outbox(&depths, write_model.state);
    vec![
        services::btc_price(&read.btc_price, rates),
        services::create_buy_order(&read.create_buy_order, rates),
        write_model,
        outbox,
        broker::queue(read, &depths),
        services::read_model_sync(&read.read_model_sync, rates, &depths),
        models::read_model(read),
        services::fetch_buy_orders(&read.fetch_buy_orders, rates),
        services::migration(&read.migration),
    ]
}

/// A message waits for milliseconds, unless the broker is away.
const OUTBOX_AGE_S: f64 = 10.0;

fn outbox(depths: &Depths, write_model: StationState) -> Station {
    let mut station = Station::new("outbox");
    station.add_figure("messages", depths.outbox, "");
    station.add_figure("oldest", depths.outbox_age_s, "s");
    match (depths.outbox_age_s, write_model) {
        (_, StationState::Away) => {
            station.add_problem("the write model, whose table it is, is away", help::WRITE_MODEL);
            station.state = StationState::Away;
        }
        (Some(age_s), _) if age_s > OUTBOX_AGE_S => {
            station.add_problem(
                format!("the oldest message has waited for {age_s:.0} s"),
                help::OUTBOX,
            );
        }
        (Some(_), _) => {}
        (None, _) => return station.unknown("create_buy_order does not tell"),
    }
    station
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
