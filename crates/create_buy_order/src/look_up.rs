//! Looks up repeats: the order that an equal request made before.

use std::sync::Arc;

use common::coalesce::Coalesced;
use common::database::{self, Pool};
use sqlx::PgConnection;

use crate::db;
use crate::order::{Order, OrderRequest};

/// Requests in one statement.
const MOST_TOGETHER: usize = 500;

type Found = Result<Option<Order>, Arc<sqlx::Error>>;

/// Looks up orders, those of requests that arrive together by one statement; cheap to clone.
#[derive(Debug, Clone)]
pub struct LookUp(Coalesced<OrderRequest, Found>);

impl LookUp {
    /// Looks up in the write model. Must be called inside the async runtime.
    #[must_use]
    pub fn new(write_model: Pool) -> Self {
        Self(Coalesced::new(MOST_TOGETHER, move |requests| {
            let write_model = write_model.clone();
            async move { find(&write_model, &requests).await }
        }))
    }

    /// The order that an equal request made before, if any. Whoever asks after an order was committed finds it.
    ///
    /// # Errors
    /// When the write model does not answer.
    pub async fn find(&self, request: OrderRequest) -> Found {
        let interrupted = || Err(Arc::new(sqlx::Error::WorkerCrashed));
        self.0.ask(request).await.unwrap_or_else(interrupted)
    }
}

async fn find(write_model: &Pool, requests: &[OrderRequest]) -> Vec<Found> {
    let known = database::read(write_model, || {
        async |connection: &mut PgConnection| db::look_up(connection, requests).await
    });
    match known.await {
        Ok(mut known) => (0..requests.len())
            .map(|place| Ok(known.remove(&place)))
            .collect(),
        Err(error) => vec![Err(Arc::new(error)); requests.len()],
    }
}
