//! The whole system as its clients see it, with real processes: one cluster for each test of the black-box suite, once without and once
//! with tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

#[path = "black_box/suite.rs"]
mod black_box;

use black_box::{System, every_sentence};
use cluster::{Cluster, Options, Service};

fn system(cluster: &Cluster) -> System {
    System {
        create_buy_order: cluster.url(Service::CreateBuyOrder),
        fetch_buy_orders: cluster.url(Service::FetchBuyOrders),
        http: cluster.http(),
    }
}

macro_rules! as_tests {
    ($($topic:ident::$sentence:ident,)*) => {
        mod without_tokens {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() -> anyhow::Result<()> {
                    let cluster = Cluster::start(Options::default()).await?;
                    black_box::$topic::$sentence(&system(&cluster)).await
                }
            )*
        }

        mod with_tokens {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() -> anyhow::Result<()> {
                    let cluster = Cluster::start(Options::default().with_tokens()).await?;
                    black_box::$topic::$sentence(&system(&cluster)).await
                }
            )*
        }
    };
}
every_sentence!(as_tests);
