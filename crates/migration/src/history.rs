//! Lets refinery work on a sqlx connection, so that `migration` connects in the same way as the services.

use refinery_core::Migration;
use refinery_core::traits::r#async::{AsyncMigrate, AsyncQuery, AsyncTransaction};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The settings of a transaction that migrates. Local to it, because a pooler lends the session to others afterwards.
///
/// A migration may take hours, and reads whole tables. But while it waits for a lock on a busy table, all others wait behind it: so it gives
/// up soon, and is tried again.
const TRANSACTION_SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s';
    SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto";

/// The session that refinery uses.
pub(crate) struct Session(pub(crate) PgConnection);

impl AsyncTransaction for Session {
    type Error = sqlx::Error;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> sqlx::Result<usize> {
        let mut transaction = self.0.begin().await?;
        sqlx::raw_sql(TRANSACTION_SETTINGS)
            .execute(&mut *transaction)
            .await?;
        let mut count: usize = 0;
        for query in queries {
            sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
                .execute(&mut *transaction)
                .await?;
            count = count.saturating_add(1);
        }
        transaction.commit().await?;
        Ok(count)
    }
}

impl AsyncQuery<Vec<Migration>> for Session {
    async fn query<'a>(&'a mut self, query: &'a str) -> sqlx::Result<Vec<Migration>> {
        let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
            .fetch_all(&mut self.0)
            .await?;
        rows.iter()
            .map(|row| {
                let applied_on: String = row.try_get("applied_on")?;
                let checksum: String = row.try_get("checksum")?;
                Ok(Migration::applied(
                    row.try_get("version")?,
                    row.try_get("name")?,
                    OffsetDateTime::parse(&applied_on, &Rfc3339).map_err(undecodable)?,
                    checksum.parse().map_err(undecodable)?,
                ))
            })
            .collect()
    }
}

impl AsyncMigrate for Session {}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
