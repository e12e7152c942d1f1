//! Reads pages, those that are asked for at the same time by one statement.

use std::sync::Arc;

use common::coalesce::Coalesced;
use common::database::{self, Pool};
use sqlx::PgConnection;

use crate::db::{self, PageRequest};
use crate::page::Page;

/// Pages in one statement: enough to spread the cost of a round trip, few enough to hold all their rows, up to 1,000 each, in memory.
const MOST_TOGETHER: usize = 16;

/// The page; nothing where the client has no order `last_reference`.
type Read = Result<Option<Page>, Arc<sqlx::Error>>;

/// Reads pages from the read model; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader(Coalesced<PageRequest, Read>);

impl Reader {
    /// A reader of this database. Must be called inside the async runtime.
    #[must_use]
    pub fn new(read_model: Pool) -> Self {
        Self(Coalesced::new(MOST_TOGETHER, move |requests| {
            let read_model = read_model.clone();
            async move { read(&read_model, &requests).await }
        }))
    }

    /// A page, with all orders that were there when it was asked for.
    ///
    /// # Errors
    /// When the database is away or refuses.
    pub async fn page(&self, request: PageRequest) -> Read {
        let interrupted = || Err(Arc::new(sqlx::Error::WorkerCrashed));
        self.0.ask(request).await.unwrap_or_else(interrupted)
    }
}

async fn read(read_model: &Pool, requests: &[PageRequest]) -> Vec<Read> {
    let pages = database::read(read_model, || {
        async |connection: &mut PgConnection| db::pages(connection, requests).await
    });
    match pages.await {
        Ok(pages) => pages.into_iter().map(|rows| Ok(rows.map(Page::of))).collect(),
        Err(error) => vec![Err(Arc::new(error)); requests.len()],
    }
}
