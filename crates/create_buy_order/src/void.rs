//! An admin process: takes an order out of the book. The order and the void stay on record; see `docs/decisions/0018-an-order-is-voided-not-deleted.md`.

use anyhow::anyhow;
use common::buy_order_event::{MAX_REASON_CHARACTERS, is_reason};
use common::database::{self, with_connection};
use common::endpoints::Database;
use common::service::{Outcome, print};
use common::timestamp::rfc3339_micros;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::voids::{self, Void};

/// Which order, and why.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The id of the order, as clients see it
    #[arg(long, value_name = "ORDER_ID")]
    id: Uuid,
    /// Why; clients that repeat the order read it
    #[arg(long, value_name = "TEXT", value_parser = read_reason)]
    reason: String,
}

fn read_reason(text: &str) -> Result<String, String> {
    let reason = text.trim();
    if is_reason(reason) {
        Ok(reason.to_owned())
    } else {
        Err(format!(
            "must be one line of 1 to {MAX_REASON_CHARACTERS} characters, without control characters"
        ))
    }
}

/// Voids the order, or says how it was voided before. Logs in as a role that may void orders.
///
/// # Errors
/// When there is no such order, the role may not void orders, or the write model fails. After a lost connection the order may be voided.
/// Starting again is safe.
pub async fn run(
    write_model: Database,
    options: Options,
    stopping: CancellationToken,
) -> anyhow::Result<Outcome> {
    let Options { id, reason } = options;
    let work = async {
        let pool = database::connect_once(&write_model, "write_model").await?;
        let voided = with_connection(&pool, async |connection| {
            voids::void(connection, id, &reason).await
        });
        let void = voided.await.map_err(|error| explain(error, &write_model.user))?;
        void.ok_or_else(|| anyhow!("no order has the id {id}"))
    };
    let Some(void) = stopping.run_until_cancelled(work).await else {
        print("interrupted: it is not known whether the order is voided; the same command again says so\n")
            .await?;
        return Ok(Outcome::NotDone);
    };
    let Void {
        id: row,
        reason,
        voided_at,
        is_new,
    } = void?;
    if is_new {
        tracing::info!(event = "buy_order_voided", id = row, external_id = %id, reason);
        print(&format!("order {id} (id {row}) is voided: {reason}\n")).await?;
    } else {
        let voided_at = rfc3339_micros(voided_at);
        print(&format!(
            "order {id} (id {row}) was voided before, at {voided_at}: {reason}\n"
        ))
        .await?;
    }
    Ok(Outcome::Done)
}

fn explain(error: sqlx::Error, user: &str) -> anyhow::Error {
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    let code = error.as_database_error().and_then(|error| error.code());
    if code.as_deref() == Some(INSUFFICIENT_PRIVILEGE) {
        return anyhow!(
            "{user} may not void orders: scripts/void.sh logs in as BUY_ORDER_VOIDER_DB_USER, who may"
        );
    }
    anyhow::Error::new(error)
        .context("the write model failed; whether the order is voided, the same command again says")
}
