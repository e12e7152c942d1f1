//! Stopping, killing, freezing and starting servers, for clusters with their own.

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::Cluster;
use crate::address::DatabaseAddress;
use crate::servers::Servers;

/// A server of a cluster with own servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// PostgreSQL of the write model.
    WriteModel,
    /// PostgreSQL of the read model.
    ReadModel,
    /// RabbitMQ.
    Broker,
}

impl Cluster {
    /// Shuts a server down cleanly (own servers only). Data and port are kept.
    ///
    /// # Errors
    /// When the servers are shared, or it does not end.
    pub async fn stop_server(&self, server: Server) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.stop(),
            Server::ReadModel => servers.read_model.stop(),
            Server::Broker => servers.rabbitmq.shut_down().await?,
        }
        Ok(())
    }

    /// Kills a server by SIGKILL (own servers only). Waits until RabbitMQ has registered its quorum queues on disk.
    ///
    /// # Errors
    /// When the servers are shared, or it does not run.
    pub async fn kill_server(&self, server: Server) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.kill(),
            Server::ReadModel => servers.read_model.kill(),
            Server::Broker => {
                servers
                    .rabbitmq
                    .wait_until_queues_are_registered(self.queue())
                    .await?;
                servers.rabbitmq.kill()
            }
        }
    }

    /// Kills a server that [`Cluster::pause_server`] has frozen (own servers only). What it has not read from its sockets is lost.
    ///
    /// # Errors
    /// When the servers are shared, or it does not run.
    pub fn kill_paused_server(&self, server: Server) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.kill(),
            Server::ReadModel => servers.read_model.kill(),
            Server::Broker => servers.rabbitmq.kill(),
        }
    }

    /// Stops PostgreSQL by SIGQUIT (own servers only): sessions end at once, and the next start recovers as after a crash. RabbitMQ has no
    /// such shutdown and is killed, as by [`Cluster::kill_server`].
    ///
    /// # Errors
    /// When the servers are shared, or it does not end.
    pub async fn stop_server_immediately(&self, server: Server) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.stop_immediately().await,
            Server::ReadModel => servers.read_model.stop_immediately().await,
            Server::Broker => self.kill_server(server).await,
        }
    }

    /// Starts a stopped or killed server on its port and data, and waits until it answers (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, or it does not answer.
    pub async fn start_server(&self, server: Server) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.start_again().await,
            Server::ReadModel => servers.read_model.start_again().await,
            Server::Broker => servers.rabbitmq.start_again().await,
        }
    }

    /// Shifts the wall clock of a PostgreSQL server by this offset (in the syntax of libfaketime: `-10m`), or resets it, from its next start on
    /// (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, libfaketime is not installed, or the server is the broker.
    pub fn set_server_clock(&self, server: Server, offset: Option<&str>) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.set_clock(offset),
            Server::ReadModel => servers.read_model.set_clock(offset),
            Server::Broker => bail!("the clock of the broker cannot be set"),
        }
    }

    /// Creates another write model on the same server: migrated, empty and not used by any service (own servers only, with which it is deleted).
    ///
    /// # Errors
    /// When the servers are shared, or do not answer.
    pub async fn another_write_model(&self) -> anyhow::Result<DatabaseAddress> {
        self.servers()?;
        self.namespace.another_write_model().await
    }

    /// Freezes a server's main process by SIGSTOP (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, or it does not run.
    pub fn pause_server(&self, server: Server) -> anyhow::Result<()> {
        self.signal_server(server, Signal::STOP)
    }

    /// Resumes a frozen server (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, or it does not run.
    pub fn resume_server(&self, server: Server) -> anyhow::Result<()> {
        self.signal_server(server, Signal::CONT)
    }

    /// The id of a server's main process (own servers only), if it runs.
    #[must_use]
    pub fn server_pid(&self, server: Server) -> Option<u32> {
        let servers = self.own_servers.as_ref()?;
        match server {
            Server::WriteModel => servers.write_model.pid(),
            Server::ReadModel => servers.read_model.pid(),
            Server::Broker => servers.rabbitmq.pids().first().copied(),
        }
    }

    /// [`Cluster::stop_server`] of the broker.
    ///
    /// # Errors
    /// As there.
    pub async fn stop_broker(&self) -> anyhow::Result<()> {
        self.stop_server(Server::Broker).await
    }

    /// [`Cluster::start_server`] of the broker.
    ///
    /// # Errors
    /// As there.
    pub async fn start_broker(&self) -> anyhow::Result<()> {
        self.start_server(Server::Broker).await
    }

    /// [`Cluster::kill_server`] of the broker.
    ///
    /// # Errors
    /// As there.
    pub async fn kill_broker(&self) -> anyhow::Result<()> {
        self.kill_server(Server::Broker).await
    }

    /// Runs `rabbitmqctl` on the broker (own servers only).
    ///
    /// # Errors
    /// When the servers are shared, or it fails.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.servers()?.rabbitmq.control(arguments).await
    }

    fn signal_server(&self, server: Server, signal: Signal) -> anyhow::Result<()> {
        let servers = self.servers()?;
        match server {
            Server::WriteModel => servers.write_model.signal(signal),
            Server::ReadModel => servers.read_model.signal(signal),
            Server::Broker => servers.rabbitmq.signal(signal),
        }
    }

    pub(super) fn servers(&self) -> anyhow::Result<&Servers> {
        self.own_servers
            .as_ref()
            .context("the servers are shared: see Options::with_own_servers")
    }
}
