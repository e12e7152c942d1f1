//! Filling the disk of the write model, for clusters with a small one.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

use super::Cluster;
use crate::servers::SmallDisk;
use crate::wait::wait_until;

const CRASH_LIMIT: Duration = Duration::from_secs(60);

impl Cluster {
    /// Fills the write model's disk. PostgreSQL then refuses statements that need space (53100), and crashes when its WAL needs space.
    ///
    /// # Errors
    /// When [`ServerSettings::write_model_disk_bytes`](crate::ServerSettings::write_model_disk_bytes) was not set, or the disk cannot be filled.
    pub async fn fill_write_model_disk(&self) -> anyhow::Result<()> {
        self.write_model_disk()?.fill().await
    }

    /// Fills the disk, and writes WAL until PostgreSQL has crashed.
    ///
    /// # Errors
    /// As [`Cluster::fill_write_model_disk`], or when PostgreSQL still runs after 60 s.
    pub async fn exhaust_write_model_disk(&self) -> anyhow::Result<()> {
        self.fill_write_model_disk().await?;
        let server = &self.servers()?.write_model;
        let database = self.addresses().write_model.options();
        // Writes only WAL: writes to tables would be refused first.
        let message = "SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 8000000))";
        wait_until(
            "PostgreSQL has crashed because of the full disk",
            CRASH_LIMIT,
            async || {
                if server.still_runs().is_err() {
                    return Ok(true);
                }
                let mut connection = PgConnection::connect_with(&database).await?;
                sqlx::query(message).execute(&mut connection).await?;
                connection.close().await?;
                Ok(false)
            },
        )
        .await
    }

    /// Frees the space and waits until PostgreSQL answers. If it has crashed, it is restarted, as the supervisor of a deployment would do.
    ///
    /// # Errors
    /// When the disk was not filled, or PostgreSQL does not answer.
    pub async fn free_write_model_disk(&self) -> anyhow::Result<()> {
        self.write_model_disk()?.free()?;
        self.servers()?.write_model.start_if_ended().await
    }

    fn write_model_disk(&self) -> anyhow::Result<&SmallDisk> {
        let disk = self.servers()?.write_model_disk.as_ref();
        disk.context("the write model has no disk of its own: see Options::with_write_model_disk")
    }
}
