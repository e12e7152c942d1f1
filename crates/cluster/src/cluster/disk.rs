//! The disk of the write model, for clusters that were given a small one.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

use super::Cluster;
use crate::servers::SmallDisk;
use crate::wait::wait_until;

const DIES_WITHIN: Duration = Duration::from_secs(60);

impl Cluster {
    /// Takes all room that is left on the write model's disk. PostgreSQL then refuses what needs more (53100), and dies when its log does.
    ///
    /// # Errors
    /// When [`Options::write_model_disk_bytes`](super::Options::write_model_disk_bytes) was not set, or the disk cannot be filled.
    pub async fn fill_write_model_disk(&self) -> anyhow::Result<()> {
        self.write_model_disk()?.fill().await
    }

    /// Takes all room that is left, and has PostgreSQL's log grow until it has died of that.
    ///
    /// # Errors
    /// As [`Cluster::fill_write_model_disk`], or when PostgreSQL still lives after 60 s.
    pub async fn exhaust_write_model_disk(&self) -> anyhow::Result<()> {
        self.fill_write_model_disk().await?;
        let server = &self.servers()?.write_model;
        let database = self.addresses().write_model.options();
        // Goes into the log alone: tables would be refused room first.
        let message = "SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 8000000))";
        wait_until("PostgreSQL has died of its full disk", DIES_WITHIN, async || {
            if server.still_runs().is_err() {
                return Ok(true);
            }
            let mut connection = PgConnection::connect_with(&database).await?;
            sqlx::query(message).execute(&mut connection).await?;
            connection.close().await?;
            Ok(false)
        })
        .await
    }

    /// Gives the room back, and waits until PostgreSQL answers. Where it has ended, because its log had no room, it is started again, as the
    /// supervisor of a deployment would.
    ///
    /// # Errors
    /// When the disk was not filled, or PostgreSQL does not answer.
    pub async fn free_write_model_disk(&self) -> anyhow::Result<()> {
        self.write_model_disk()?.free()?;
        self.servers()?.write_model.start_if_ended().await
    }

    fn write_model_disk(&self) -> anyhow::Result<&SmallDisk> {
        let disk = self.servers()?.write_model_disk.as_ref();
        disk.context("the write model has no disk of its own: set Options::write_model_disk_bytes")
    }
}
