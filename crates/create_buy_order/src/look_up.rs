//! Finds the order that a request repeats.

use std::sync::Arc;

use common::coalesce::Coalesced;
use common::database::{self, Pool};
use sqlx::PgConnection;

use crate::db;
use crate::order::{RequestIdentity, Verdict};

const MAX_PER_STATEMENT: usize = 500;

type Found = Result<Option<Verdict>, Arc<sqlx::Error>>;

/// Looks up orders. Requests that arrive together share a statement. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LookUp(Coalesced<RequestIdentity, Found>);

impl LookUp {
    /// Must be called inside the async runtime.
    pub(crate) fn new(write_model: Pool) -> Self {
        Self(Coalesced::new(MAX_PER_STATEMENT, move |identities| {
            let write_model = write_model.clone();
            async move { find(&write_model, &identities).await }
        }))
    }

    /// The verdict on a request whose identity an earlier one had: [`Verdict::Repeated`] or [`Verdict::Voided`]. An order that was committed
    /// before this call is found.
    pub(crate) async fn find(&self, identity: RequestIdentity) -> Found {
        let interrupted = || Err(Arc::new(sqlx::Error::WorkerCrashed));
        self.0.ask(identity).await.unwrap_or_else(interrupted)
    }
}

async fn find(write_model: &Pool, identities: &[RequestIdentity]) -> Vec<Found> {
    let verdicts = database::read(write_model, || {
        async |connection: &mut PgConnection| db::look_up(connection, identities).await
    });
    match verdicts.await {
        Ok(verdicts) => verdicts.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(Arc::new(error)); identities.len()],
    }
}
