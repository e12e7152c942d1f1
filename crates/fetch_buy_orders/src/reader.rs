//! Reads pages. Requests that arrive together share one statement.

use std::sync::Arc;

use common::coalesce::Coalesced;
use common::database::{self, Pool};
use sqlx::PgConnection;

use crate::db::{self, PageRequest, PageRows};
use crate::page::Page;

/// The maximum number of pages in one statement: enough to share the cost of a round trip, and few enough to keep all their rows, up to
/// 1,000 each, in memory.
pub const MAX_BATCH: usize = 16;

/// The rows of the page; nothing when the client has no order `last_reference`.
type RowsResult = Result<Option<PageRows>, Arc<sqlx::Error>>;

/// Reads pages from the read model; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader(Coalesced<PageRequest, RowsResult>);

impl Reader {
    /// A reader of this database. Must be called inside the async runtime.
    #[must_use]
    pub fn new(read_model: Pool) -> Self {
        Self(Coalesced::new(MAX_BATCH, move |requests| {
            let read_model = read_model.clone();
            async move { read(&read_model, &requests).await }
        }))
    }

    /// A page, with all orders that were stored when this was called; nothing when the client has no order `last_reference`.
    ///
    /// # Errors
    /// When the database is away or refuses.
    pub async fn page(&self, request: PageRequest) -> Result<Option<Page>, Arc<sqlx::Error>> {
        let answer = self.0.ask(request).await;
        let rows = answer.unwrap_or_else(|| Err(Arc::new(sqlx::Error::WorkerCrashed)))?;
        let orders = rows.map(|rows| rows.decode()).transpose()?;
        Ok(orders.map(Page::of))
    }
}

async fn read(read_model: &Pool, requests: &[PageRequest]) -> Vec<RowsResult> {
    let pages = database::read(read_model, || {
        async |connection: &mut PgConnection| db::pages(connection, requests).await
    });
    match pages.await {
        Ok(pages) => pages.into_iter().map(Ok).collect(),
        Err(error) => {
            let error = Arc::new(error);
            requests.iter().map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}
