//! One client's many orders do not keep those of another waiting.

use std::time::Duration;

use cluster::issuer::{ALL_SCOPES, claims};
use cluster::{Cluster, Options, Service, bearer, lock_running_total, new_order, wait_until};
use futures_util::future::try_join_all;
use sqlx::{Postgres, Transaction};

use super::Answer;
use super::batch::{drafts_that_wait, writers_that_wait};

const LIMIT: Duration = Duration::from_secs(30);

/// As in `batch.rs` of the service.
const MAX_OF_A_CLIENT: i64 = 128;
const MAX_WAITING: usize = 2_000;

/// Clients 1 and 2, with their tokens. A quote is at hand.
pub(crate) struct Clients {
    pub(crate) cluster: Cluster,
    tokens: [String; 2],
}

impl Clients {
    async fn start() -> anyhow::Result<Self> {
        let services = Options::only(&[Service::BtcPrice, Service::CreateBuyOrder]);
        let quotes_last = services.with_env(Service::BtcPrice, "QUOTE_MAX_AGE_S", "60");
        Self::of(Cluster::start(quotes_last.with_tokens()).await?).await
    }

    /// The first client has placed an order of USD 0.01 then.
    pub(crate) async fn of(cluster: Cluster) -> anyhow::Result<Self> {
        let second = "INSERT INTO client (email) VALUES ('second@example.com') RETURNING id";
        let second: i64 = sqlx::query_scalar(second)
            .fetch_one(cluster.write_model())
            .await?;
        let token = |client| cluster.issuer()?.key.sign(&claims(client, ALL_SCOPES, 3600)?);
        let tokens = [token(1)?, token(second)?];
        let clients = Self { cluster, tokens };
        wait_until("the issuer's key is known", LIMIT, async || {
            Ok(clients.place(0).await?.status == 200)
        })
        .await?;
        Ok(clients)
    }

    async fn place(&self, client: usize) -> anyhow::Result<Answer> {
        self.buy(client, "0.01").await
    }

    /// An order of this amount of USD.
    pub(crate) async fn buy(&self, client: usize, amount: &str) -> anyhow::Result<Answer> {
        let url = self.cluster.url(Service::CreateBuyOrder) + "/buy_order";
        let request = self
            .cluster
            .http()
            .put(url)
            .headers(bearer(&self.tokens[client])?);
        super::answer(request.json(&new_order("USD", amount)).send().await?).await
    }

    async fn place_many(&self, client: usize, orders: usize) -> anyhow::Result<Vec<Answer>> {
        try_join_all((0..orders).map(|_| self.place(client))).await
    }

    /// Returns when so many orders wait for the one that waits for the lock.
    async fn wait_for_drafts(&self, drafts: usize) -> anyhow::Result<()> {
        let urls = [self.cluster.url(Service::CreateBuyOrder)];
        wait_until("the orders wait", LIMIT, async || {
            let waiting = drafts_that_wait(&self.cluster, &urls).await?;
            Ok(waiting == drafts + 1 && writers_that_wait(&self.cluster).await? == 1)
        })
        .await
    }

    /// Returns when so many orders were refused because the queue was full.
    async fn wait_for_refusals(&self, refusals: usize) -> anyhow::Result<()> {
        let url = self.cluster.url(Service::CreateBuyOrder);
        let expected = format!("buy_orders_refused_total{{reason=\"busy\"}} {refusals}");
        wait_until("orders are refused", LIMIT, async || {
            Ok(super::metrics(&self.cluster.http(), &url)
                .await?
                .contains(&expected))
        })
        .await
    }

    async fn lock(&self) -> anyhow::Result<Transaction<'static, Postgres>> {
        Ok(lock_running_total(self.cluster.write_model()).await?)
    }

    /// The place of an order among all, from 1.
    async fn place_in_the_book(&self, order: &str) -> anyhow::Result<i64> {
        let earlier = "SELECT count(*) FROM buy_order WHERE id <= (SELECT id FROM buy_order WHERE external_id = $1::uuid)";
        let earlier = sqlx::query_scalar(earlier).bind(order);
        Ok(earlier.fetch_one(self.cluster.write_model()).await?)
    }
}

#[tokio::test]
async fn the_order_of_another_client_is_in_the_next_batch_however_many_wait() -> anyhow::Result<()> {
    const MANY: usize = 600;
    let clients = Clients::start().await?;
    let before: i64 = super::count(&clients.cluster, "buy_order").await?;
    let lock = clients.lock().await?;
    let lone = async {
        clients.wait_for_drafts(MANY).await?;
        let release = async {
            clients.wait_for_drafts(MANY + 1).await?;
            Ok(lock.rollback().await?)
        };
        Ok::<_, anyhow::Error>(tokio::try_join!(clients.place(1), release)?.0)
    };
    // One that waits for the lock, and the others, which wait for it.
    let many = async {
        let others = async {
            clients.wait_for_drafts(0).await?;
            clients.place_many(0, MANY).await
        };
        tokio::try_join!(clients.place(0), others)
    };
    let ((first, others), lone) = tokio::try_join!(many, lone)?;
    let mut all = others.iter().chain([&first, &lone]);
    assert!(all.all(|answer| answer.status == 200));
    let place = clients.place_in_the_book(lone.order("id")).await? - before;
    assert!(place <= 1 + MAX_OF_A_CLIENT + 1, "{place} of {MANY}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_has_filled_the_queue_is_refused_and_another_is_not() -> anyhow::Result<()> {
    const TOO_MANY: usize = 10;
    let clients = Clients::start().await?;
    let lock = clients.lock().await?;
    let lone = async {
        // All were sent: otherwise one that comes late would find room.
        clients.wait_for_refusals(TOO_MANY).await?;
        clients.wait_for_drafts(MAX_WAITING).await?;
        let release = async {
            clients.wait_for_drafts(MAX_WAITING + 1).await?;
            Ok(lock.rollback().await?)
        };
        Ok::<_, anyhow::Error>(tokio::try_join!(clients.place(1), release)?.0)
    };
    let many = async {
        let others = async {
            clients.wait_for_drafts(0).await?;
            clients.place_many(0, MAX_WAITING + TOO_MANY).await
        };
        tokio::try_join!(clients.place(0), others)
    };
    let ((_, others), lone) = tokio::try_join!(many, lone)?;
    assert_eq!(lone.status, 200, "{lone:?}");
    let refused: Vec<_> = others.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), TOO_MANY);
    assert!(
        refused.iter().all(|answer| answer.retry_after.is_some()),
        "{refused:?}"
    );
    Ok(())
}
