//! What is measured. A group is a module with an `async fn measure(&mut Bench) -> anyhow::Result<()>`, and a line in [`ALL`].

mod depth;
mod end_to_end;
mod footprint;
mod growth;
mod orders;
mod pages;
mod per_order;
mod quotes;
mod repeats;
mod replicas;
mod tokens;

use futures_util::future::LocalBoxFuture;

use crate::bench::Bench;

type Measure = for<'a> fn(&'a mut Bench) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Measurements that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The name for `--only`, and the group of its figures.
    pub name: &'static str,
    /// What is measured.
    pub about: &'static str,
    /// Measures it and adds the figures to the bench. An error means that a measurement could not be made.
    pub measure: Measure,
}

/// All groups, in the order in which they run. Those that share a cluster come first.
pub const ALL: &[Group] = &[
    Group {
        name: "orders",
        about: "orders accepted a second, and their latency, beside pgbench that has accept_orders write one order, or 64",
        measure: |bench| Box::pin(orders::measure(bench)),
    },
    Group {
        name: "repeats",
        about: "repeats answered a second, beside pgbench with the look-up alone",
        measure: |bench| Box::pin(repeats::measure(bench)),
    },
    Group {
        name: "tokens",
        about: "orders a second, and processor time, with a token on each request, beside those without",
        measure: |bench| Box::pin(tokens::measure(bench)),
    },
    Group {
        name: "pages",
        about: "pages a second, beside pgbench with the same SELECT, and beside a handler that answers a constant",
        measure: |bench| Box::pin(pages::measure(bench)),
    },
    Group {
        name: "quotes",
        about: "quotes a second with a warm cache, and how often Coinbase was asked",
        measure: |bench| Box::pin(quotes::measure(bench)),
    },
    Group {
        name: "end_to_end",
        about: "orders projected a second and how long after they were accepted, at full speed, at a rate, and after a burst",
        measure: |bench| Box::pin(end_to_end::measure(bench)),
    },
    Group {
        name: "per_order",
        about: "what an order takes: processors, WAL, fsyncs, bytes through the broker, statements, events",
        measure: |bench| Box::pin(per_order::measure(bench)),
    },
    Group {
        name: "growth",
        about: "orders a second with millions stored, beside a book that is empty",
        measure: |bench| Box::pin(growth::measure(bench)),
    },
    // After growth: it reads the orders that growth stores.
    Group {
        name: "depth",
        about: "latency of pages millions of orders deep, beside the first",
        measure: |bench| Box::pin(depth::measure(bench)),
    },
    Group {
        name: "replicas",
        about: "orders, pages and projected orders a second with 2 and 4 processes of a service, beside one",
        measure: |bench| Box::pin(replicas::measure(bench)),
    },
    Group {
        name: "footprint",
        about: "time to start, memory, size of binaries and images, and, unless --quick, time to build",
        measure: |bench| Box::pin(footprint::measure(bench)),
    },
];
