//! An admin process: sends the orders of the write model through the outbox once more, so that a read model that was emptied or lost becomes
//! equal to it again. Running services go on meanwhile; what the read model has already, it keeps.

use std::time::Duration;

use anyhow::Context as _;
use common::database::with_connection;
use sqlx::PgPool;

use crate::db::outbox;

/// The argument that makes the process do this, and exit.
pub const REPUBLISH: &str = "--republish";

/// Orders written to the outbox at once.
const BATCH: i64 = 1_000;

/// Events that wait at most: history must not stand in the way of new orders for long.
const MOST_WAITING: i64 = 2_000;

const POLL: Duration = Duration::from_millis(100);

/// Sends every order that is there when it begins; ends when the broker has confirmed the last one. A relay has to run beside it.
///
/// # Errors
/// When the write model fails. Beginning anew is safe.
pub async fn everything(pool: &PgPool) -> anyhow::Result<()> {
    let (mut last_order, mut last_event, mut sent) = (0, 0, 0);
    loop {
        wait_until_relayed(pool, last_event, MOST_WAITING).await?;
        let added = with_connection(pool, async |connection| {
            outbox::add_again(connection, last_order, BATCH).await
        });
        let Some(added) = added.await.context("orders could not be sent again")? else {
            break;
        };
        (last_order, last_event) = (added.last_order, added.last_event);
        sent += added.orders;
        tracing::info!("{sent} orders are on their way again, through id {last_order}");
    }
    wait_until_relayed(pool, last_event, 0).await?;
    tracing::info!("all {sent} orders are in the queue again");
    Ok(())
}

/// Waits until no more than `waiting` of the events up to `last_event` are left.
async fn wait_until_relayed(pool: &PgPool, last_event: i64, waiting: i64) -> anyhow::Result<()> {
    loop {
        let left = with_connection(pool, async |connection| {
            outbox::count_through(connection, last_event).await
        });
        if left.await.context("the outbox cannot be counted")? <= waiting {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
