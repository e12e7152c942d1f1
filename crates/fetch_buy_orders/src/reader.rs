//! Reads pages, those that are asked for at the same time by one statement.

use std::sync::Arc;

use common::coalesce::Coalesced;
use common::database::{Pool, with_connection};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::db::{self, Range};
use crate::page::{BuyOrder, Page};

/// Pages in one statement: enough to spread the cost of a round trip, few enough to hold all their rows, up to 1,000 each, in memory.
const MOST_TOGETHER: usize = 16;

/// Above every id that an identity column draws: the newest page begins below it.
const ABOVE_ALL_IDS: i64 = i64::MAX;

/// Which page.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Whose orders.
    pub client_id: i64,
    /// The last order of the page before; nothing for the newest page.
    pub last_reference: Option<Uuid>,
    /// How many orders at most.
    pub page_size: u32,
}

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
    let pages = with_connection(read_model, async |connection| pages(connection, requests).await);
    match pages.await {
        Ok(pages) => pages.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Arc::new(error)); requests.len()],
    }
}

async fn pages(connection: &mut PgConnection, requests: &[PageRequest]) -> sqlx::Result<Vec<Option<Page>>> {
    let ranges = ranges(connection, requests).await?;
    let known: Vec<Range> = ranges.iter().copied().flatten().collect();
    let mut rows: std::vec::IntoIter<Vec<BuyOrder>> = db::pages(connection, &known).await?.into_iter();
    Ok(ranges
        .into_iter()
        .map(|range| range.and_then(|_| rows.next()).map(Page::of))
        .collect())
}

/// The ranges of the pages; nothing where a reference is unknown.
async fn ranges(connection: &mut PgConnection, requests: &[PageRequest]) -> sqlx::Result<Vec<Option<Range>>> {
    let references: Vec<(i64, Uuid)> = requests
        .iter()
        .filter_map(|request| Some((request.client_id, request.last_reference?)))
        .collect();
    let mut positions = if references.is_empty() {
        Vec::new()
    } else {
        db::positions(connection, &references).await?
    }
    .into_iter();
    let range = |request: &PageRequest| {
        let below = match request.last_reference {
            None => Some(ABOVE_ALL_IDS),
            Some(_) => positions.next().flatten(),
        };
        below.map(|below| Range {
            client_id: request.client_id,
            below,
            page_size: request.page_size,
        })
    };
    Ok(requests.iter().map(range).collect())
}
