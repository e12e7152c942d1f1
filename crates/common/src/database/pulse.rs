//! Whether a database answers.

use std::sync::{Mutex, PoisonError};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::endpoints::Database;

/// Asks a database on a connection of its own, kept from one time to the next.
#[derive(Debug)]
pub(crate) struct Pulse {
    endpoint: Database,
    kept: Mutex<Option<PgConnection>>,
}

impl Pulse {
    pub(crate) fn of(endpoint: &Database) -> Self {
        Self {
            endpoint: endpoint.clone(),
            kept: Mutex::default(),
        }
    }

    /// Succeeds when the database answers. Has no limit of its own; dropping it closes the connection.
    pub(crate) async fn feel(&self) -> sqlx::Result<()> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept {
            Some(mut connection) => match connection.ping().await {
                Ok(()) => connection,
                // A server that started anew has closed it.
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        connection.ping().await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        super::options(&self.endpoint).connect().await
    }
}
