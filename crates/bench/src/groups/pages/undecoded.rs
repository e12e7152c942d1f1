//! Pages that are read as `fetch_buy_orders` reads them, and then dropped: the rows are not decoded, and there is neither JSON nor HTTP. What
//! a service makes of rows that sqlx reads can at most be as many.

use std::time::{Duration, Instant};

use cluster::{Cluster, Service};
use common::database;
use common::endpoints::Database;
use common::env::Env;
use fetch_buy_orders::db::{self, PageRequest};
use fetch_buy_orders::reader::MAX_BATCH;
use futures_util::future::try_join_all;

use crate::figures::figure;

/// Enough to use both processors: two sessions read a quarter less, and eight no more.
const SESSIONS: usize = 4;

/// Pages per second.
pub(super) async fn per_second(cluster: &Cluster, page_size: u32, duration: Duration) -> anyhow::Result<f64> {
    let mut env = Env::from_pairs(cluster.environment(Service::FetchBuyOrders)?);
    let endpoint = Database::from_env(&mut env, "READ_MODEL_DB");
    let endpoint = env.finish(endpoint)?;
    let began = Instant::now();
    let sessions = (0..SESSIONS).map(|_| {
        let endpoint = endpoint.clone();
        tokio::spawn(async move { read(&endpoint, page_size, duration).await })
    });
    let mut pages = 0;
    for read in try_join_all(sessions).await? {
        pages += read?;
    }
    Ok(figure(pages) / began.elapsed().as_secs_f64())
}

/// Returns the number of pages.
async fn read(endpoint: &Database, page_size: u32, duration: Duration) -> anyhow::Result<u64> {
    let mut session = database::session(endpoint).await?;
    let newest = PageRequest {
        client_id: 1,
        last_reference: None,
        page_size,
    };
    let requests = [newest; MAX_BATCH];
    let (began, mut pages) = (Instant::now(), 0);
    while began.elapsed() < duration {
        pages += db::pages(&mut session, &requests).await?.len() as u64;
    }
    Ok(pages)
}
