//! The whole system as its clients see it, with real processes: one cluster for each test of the black-box suite.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[path = "black_box/suite.rs"]
mod black_box;

use black_box::{System, every_sentence};
use cluster::{Cluster, Options, Service};

macro_rules! as_tests {
    ($($topic:ident::$sentence:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() -> anyhow::Result<()> {
                let cluster = Cluster::start(Options::default()).await?;
                let system = System {
                    create_buy_order: cluster.url(Service::CreateBuyOrder),
                    fetch_buy_orders: cluster.url(Service::FetchBuyOrders),
                    http: cluster.http(),
                };
                black_box::$topic::$sentence(&system).await
            }
        )*
    };
}
every_sentence!(as_tests);
