//! Waits for the database schemas: a service starts its work only when `migration` reports that they are up to date.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use backon::Retryable as _;

use crate::endpoints::Peer;
use crate::http::client;
use crate::retry;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Waits until `migration` answers its health check. Pauses grow from try to try, and each failed try is an event.
///
/// # Errors
/// The HTTP client cannot be built.
pub async fn wait(migration: &Peer) -> anyhow::Result<()> {
    let client = client::client(REQUEST_TIMEOUT, migration.extra_ca.as_deref())?;
    let url = migration.url("/healthcheck");
    tracing::info!(event = "waiting_for_migrations");
    let ask = || async {
        let response = client
            .get(&url)
            .send()
            .await
            .context("migration cannot be reached")?;
        let status = response.status();
        ensure!(status.is_success(), "migration answered {status}");
        Ok(())
    };
    let report = |error: &anyhow::Error, _pause| {
        tracing::warn!(
            event = "migrations_service_connection_error",
            error_text = format!("{error:#}")
        );
    };
    ask.retry(retry::for_ever(FIRST_PAUSE)).notify(report).await
}
