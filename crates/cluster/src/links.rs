//! Connections between the parts of a cluster, which tests can break.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::proxy::TcpProxy;
use crate::service::Service;

/// A connection, from client to server.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Orders and their outbox.
    CreateBuyOrderToWriteModel,
    /// Messages from the outbox.
    CreateBuyOrderToBroker,
    /// Quotes.
    CreateBuyOrderToBtcPrice,
    /// Prices; the simulator stands for Coinbase.
    BtcPriceToCoinbase,
    /// The projection.
    ReadModelSyncToReadModel,
    /// Messages to the projection.
    ReadModelSyncToBroker,
    /// Pages.
    FetchBuyOrdersToReadModel,
    /// The health check of migration by the services.
    ToMigration,
    /// The write model's schema.
    MigrationToWriteModel,
    /// The read model's schema.
    MigrationToReadModel,
    /// Exchanges and queues.
    MigrationToBroker,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CreateBuyOrderToWriteModel,
        Self::CreateBuyOrderToBroker,
        Self::CreateBuyOrderToBtcPrice,
        Self::BtcPriceToCoinbase,
        Self::ReadModelSyncToReadModel,
        Self::ReadModelSyncToBroker,
        Self::FetchBuyOrdersToReadModel,
        Self::ToMigration,
        Self::MigrationToWriteModel,
        Self::MigrationToReadModel,
        Self::MigrationToBroker,
    ];

    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateBuyOrderToWriteModel => "create_buy_order_to_write_model",
            Self::CreateBuyOrderToBroker => "create_buy_order_to_broker",
            Self::CreateBuyOrderToBtcPrice => "create_buy_order_to_btc_price",
            Self::BtcPriceToCoinbase => "btc_price_to_coinbase",
            Self::ReadModelSyncToReadModel => "read_model_sync_to_read_model",
            Self::ReadModelSyncToBroker => "read_model_sync_to_broker",
            Self::FetchBuyOrdersToReadModel => "fetch_buy_orders_to_read_model",
            Self::ToMigration => "to_migration",
            Self::MigrationToWriteModel => "migration_to_write_model",
            Self::MigrationToReadModel => "migration_to_read_model",
            Self::MigrationToBroker => "migration_to_broker",
        }
    }

    /// Whether this service is a client of the link.
    fn starts_at(self, service: Service) -> bool {
        match self {
            Self::CreateBuyOrderToWriteModel
            | Self::CreateBuyOrderToBroker
            | Self::CreateBuyOrderToBtcPrice => service == Service::CreateBuyOrder,
            Self::BtcPriceToCoinbase => service == Service::BtcPrice,
            Self::ReadModelSyncToReadModel | Self::ReadModelSyncToBroker => service == Service::ReadModelSync,
            Self::FetchBuyOrdersToReadModel => service == Service::FetchBuyOrders,
            Self::ToMigration => matches!(
                service,
                Service::CreateBuyOrder | Service::ReadModelSync | Service::FetchBuyOrders
            ),
            Self::MigrationToWriteModel | Self::MigrationToReadModel | Self::MigrationToBroker => {
                service == Service::Migration
            }
        }
    }

    /// The environment variables with the address of the server.
    fn host_and_port(self) -> (&'static str, &'static str) {
        match self {
            Self::CreateBuyOrderToWriteModel | Self::MigrationToWriteModel => {
                ("WRITE_MODEL_DB_HOST", "WRITE_MODEL_DB_PORT")
            }
            Self::ReadModelSyncToReadModel | Self::FetchBuyOrdersToReadModel | Self::MigrationToReadModel => {
                ("READ_MODEL_DB_HOST", "READ_MODEL_DB_PORT")
            }
            Self::CreateBuyOrderToBroker | Self::ReadModelSyncToBroker | Self::MigrationToBroker => {
                ("Q_HOST", "Q_PORT")
            }
            Self::CreateBuyOrderToBtcPrice => ("BTC_PRICE_HOST", "BTC_PRICE_PORT"),
            Self::BtcPriceToCoinbase => ("CB_HOST", "CB_PORT"),
            Self::ToMigration => ("MIGRATION_HOST", "MIGRATION_PORT"),
        }
    }
}

/// The proxies of a cluster.
pub(crate) type Links = BTreeMap<Link, TcpProxy>;

/// Starts a proxy for each link, in front of the address in `contract`.
pub(crate) fn start(links: &[Link], contract: &BTreeMap<String, String>) -> anyhow::Result<Links> {
    let start = |link: &Link| {
        let (host, port) = link.host_and_port();
        let value = |name| contract.get(name).with_context(|| format!("{name} is missing"));
        Ok((*link, TcpProxy::start(value(host)?, value(port)?.parse()?)?))
    };
    links.iter().map(start).collect()
}

/// The environment variables that point a service to its proxies.
pub(crate) fn variables(links: &Links, service: Service) -> impl Iterator<Item = (String, String)> {
    let through = move |(link, proxy): (&Link, &TcpProxy)| {
        let (host, port) = link.host_and_port();
        let variables = [(host, "127.0.0.1".to_owned()), (port, proxy.port().to_string())];
        link.starts_at(service)
            .then_some(variables.map(|(name, value)| (name.to_owned(), value)))
    };
    links.iter().filter_map(through).flatten()
}
