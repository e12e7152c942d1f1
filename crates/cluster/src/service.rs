//! The services, and the variables of the environment contract that each of them gets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Brings both schemas up to date.
    Migration,
    /// Quotes BTC.
    BtcPrice,
    /// Accepts orders.
    CreateBuyOrder,
    /// Projects the write model into the read model.
    ReadModelSync,
    /// Serves pages of orders.
    FetchBuyOrders,
    /// Shows operators what the others do.
    Console,
}

/// Without `OTEL_SERVICE_NAME`, because each service has its own name.
const TRACES: &[&str] = &[
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];
const EVERY_SERVICE: &[&str] = &[
    "SERVICE_HOST",
    "SERVICE_PORT",
    "OPS_PORT",
    "DEPLOYMENT",
    "SERVICE_TLS_CERT_FILE",
    "SERVICE_TLS_KEY_FILE",
    "LOGGING_HOST",
    "LOGGING_PORT",
    "LOGGING_RETRY_S",
    "RUST_LOG",
];
const WRITE_MODEL: &[&str] = &[
    "WRITE_MODEL_DB_HOST",
    "WRITE_MODEL_DB_PORT",
    "WRITE_MODEL_DB_NAME",
    "WRITE_MODEL_DB_USER",
    "WRITE_MODEL_DB_PWD",
    "WRITE_MODEL_DB_PWD_FILE",
    "WRITE_MODEL_DB_RETRY_WAIT_S",
    "WRITE_MODEL_DB_SSLMODE",
    "WRITE_MODEL_DB_CA_FILE",
];
const READ_MODEL: &[&str] = &[
    "READ_MODEL_DB_HOST",
    "READ_MODEL_DB_PORT",
    "READ_MODEL_DB_NAME",
    "READ_MODEL_DB_USER",
    "READ_MODEL_DB_PWD",
    "READ_MODEL_DB_PWD_FILE",
    "READ_MODEL_DB_RETRY_WAIT_S",
    "READ_MODEL_DB_SSLMODE",
    "READ_MODEL_DB_CA_FILE",
];
const ROLES: &[&str] = &[
    "CREATE_BUY_ORDER_DB_USER",
    "CREATE_BUY_ORDER_DB_PWD",
    "CREATE_BUY_ORDER_DB_PWD_FILE",
    "BUY_ORDER_VOIDER_DB_USER",
    "BUY_ORDER_VOIDER_DB_PWD",
    "BUY_ORDER_VOIDER_DB_PWD_FILE",
    "READ_MODEL_SYNC_DB_USER",
    "READ_MODEL_SYNC_DB_PWD",
    "READ_MODEL_SYNC_DB_PWD_FILE",
    "FETCH_BUY_ORDERS_DB_USER",
    "FETCH_BUY_ORDERS_DB_PWD",
    "FETCH_BUY_ORDERS_DB_PWD_FILE",
];
const MIGRATION: &[&str] = &[
    "MIGRATION_PROTOCOL",
    "MIGRATION_HOST",
    "MIGRATION_PORT",
    "EXTRA_CA_FILE",
];
const QUEUE: &[&str] = &[
    "Q_PROTOCOL",
    "Q_HOST",
    "Q_PORT",
    "Q_CA_FILE",
    "Q_USER",
    "Q_PWD",
    "Q_PWD_FILE",
    "Q_VHOST",
    "Q_EXCHANGE",
    "Q_CLIENT_CONNECT_RETRY_S",
];
const BTC_PRICE: &[&str] = &["BTC_PRICE_PROTOCOL", "BTC_PRICE_HOST", "BTC_PRICE_PORT"];
const COINBASE: &[&str] = &[
    "CB_PROTOCOL",
    "CB_HOST",
    "CB_PORT",
    "CB_PATH",
    "CB_TIMEOUT_S",
    "QUOTE_MAX_AGE_S",
    "QUOTE_MAX_DEVIATION",
    "QUOTE_DEVIATION_HOLD_S",
    "EXTRA_CA_FILE",
];
const AUTH: &[&str] = &[
    "AUTH_MODE",
    "AUTH_ISSUER",
    "AUTH_AUDIENCE",
    "AUTH_JWKS_URL",
    "AUTH_JWKS_FILE",
    "AUTH_JWKS_REFETCH_S",
    "AUTH_CLIENT_CLAIM",
];
const ORDER_LIMITS: &[&str] = &["ORDER_MIN_BTC", "ORDER_MAX_BTC", "ORDER_MAX_BTC_PER_CLIENT"];

/// Where spans go that a user sends nowhere else.
const SPANS: &[&str] = &["CONSOLE_HOST", "CONSOLE_PORT", "EXTRA_CA_FILE"];
/// What the console asks, and its own name.
const WATCHED: &[&str] = &[
    "CONSOLE_HOST",
    "EXTRA_CA_FILE",
    "MIGRATION_HOST",
    "MIGRATION_PORT",
    "BTC_PRICE_HOST",
    "BTC_PRICE_PORT",
    "CREATE_BUY_ORDER_HOST",
    "CREATE_BUY_ORDER_PORT",
    "READ_MODEL_SYNC_HOST",
    "READ_MODEL_SYNC_PORT",
    "FETCH_BUY_ORDERS_HOST",
    "FETCH_BUY_ORDERS_PORT",
];

impl Service {
    /// All of them, in the order of their dependencies.
    pub const ALL: [Self; 6] = [
        Self::Migration,
        Self::BtcPrice,
        Self::CreateBuyOrder,
        Self::ReadModelSync,
        Self::FetchBuyOrders,
        Self::Console,
    ];

    /// Those that handle orders: all but the console.
    pub const OF_ORDERS: [Self; 5] = [
        Self::Migration,
        Self::BtcPrice,
        Self::CreateBuyOrder,
        Self::ReadModelSync,
        Self::FetchBuyOrders,
    ];

    /// The name of its crate, binary and compose service.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Migration => "migration",
            Self::BtcPrice => "btc_price",
            Self::CreateBuyOrder => "create_buy_order",
            Self::ReadModelSync => "read_model_sync",
            Self::FetchBuyOrders => "fetch_buy_orders",
            Self::Console => "console",
        }
    }

    /// The variables that it reads. Compose passes all of them, except passwords in files (`…_PWD_FILE`).
    pub fn variables(self) -> impl Iterator<Item = &'static str> {
        let groups: &[&[&str]] = match self {
            Self::Migration => &[SPANS, WRITE_MODEL, READ_MODEL, ROLES, QUEUE],
            Self::BtcPrice => &[SPANS, COINBASE],
            Self::CreateBuyOrder => &[
                SPANS,
                WRITE_MODEL,
                MIGRATION,
                QUEUE,
                BTC_PRICE,
                ORDER_LIMITS,
                AUTH,
            ],
            Self::ReadModelSync => &[SPANS, READ_MODEL, MIGRATION, QUEUE],
            Self::FetchBuyOrders => &[SPANS, READ_MODEL, MIGRATION, AUTH],
            Self::Console => &[WATCHED],
        };
        let of_every_service = EVERY_SERVICE.iter().chain(TRACES);
        of_every_service.chain(groups.iter().copied().flatten()).copied()
    }

    /// Its variables from `contract`. It logs in to its database and the broker as its own role and user, which the contract has under the
    /// name of the service, as `.env` and docker-compose.yml have.
    #[must_use]
    pub fn environment(self, contract: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let value = |name: &str| {
            let own = [("WRITE_MODEL_DB_", "DB"), ("READ_MODEL_DB_", "DB"), ("Q_", "Q")]
                .iter()
                .filter_map(|(group, server)| Some((server, name.strip_prefix(group)?)))
                .find_map(|(server, rest)| {
                    contract.get(&format!("{}_{server}_{rest}", self.name().to_uppercase()))
                });
            own.or_else(|| contract.get(name)).cloned()
        };
        self.variables()
            .filter_map(|name| Some((name.to_owned(), value(name)?)))
            .collect()
    }

    /// The path of its binary.
    ///
    /// # Errors
    /// When it is not built.
    pub fn binary(self) -> anyhow::Result<PathBuf> {
        binary(self.name())
    }
}

/// The variables of the environment contract that have the same value in every test.
pub(crate) fn default_contract() -> BTreeMap<String, String> {
    [
        ("SERVICE_HOST", "127.0.0.1"),
        ("RUST_LOG", "info"),
        ("LOGGING_HOST", ""),
        ("CREATE_BUY_ORDER_DB_USER", "create_buy_order"),
        ("CREATE_BUY_ORDER_DB_PWD", "create_buy_order_password"),
        ("BUY_ORDER_VOIDER_DB_USER", "buy_order_voider"),
        ("BUY_ORDER_VOIDER_DB_PWD", "buy_order_voider_password"),
        ("READ_MODEL_SYNC_DB_USER", "read_model_sync"),
        ("READ_MODEL_SYNC_DB_PWD", "read_model_sync_password"),
        ("FETCH_BUY_ORDERS_DB_USER", "fetch_buy_orders"),
        ("FETCH_BUY_ORDERS_DB_PWD", "fetch_buy_orders_password"),
        ("MIGRATION_Q_USER", "migration"),
        ("MIGRATION_Q_PWD", "migration_password"),
        ("CREATE_BUY_ORDER_Q_USER", "create_buy_order"),
        ("CREATE_BUY_ORDER_Q_PWD", "create_buy_order_password"),
        ("READ_MODEL_SYNC_Q_USER", "read_model_sync"),
        ("READ_MODEL_SYNC_Q_PWD", "read_model_sync_password"),
        ("WRITE_MODEL_DB_RETRY_WAIT_S", "1"),
        ("READ_MODEL_DB_RETRY_WAIT_S", "1"),
        ("Q_EXCHANGE", "pydist"),
        ("Q_CLIENT_CONNECT_RETRY_S", "1"),
        ("MIGRATION_PROTOCOL", "http"),
        ("MIGRATION_HOST", "127.0.0.1"),
        ("BTC_PRICE_PROTOCOL", "http"),
        ("BTC_PRICE_HOST", "127.0.0.1"),
        ("CREATE_BUY_ORDER_HOST", "127.0.0.1"),
        ("READ_MODEL_SYNC_HOST", "127.0.0.1"),
        ("FETCH_BUY_ORDERS_HOST", "127.0.0.1"),
        ("CONSOLE_HOST", "127.0.0.1"),
        ("CB_PROTOCOL", "http"),
        ("CB_HOST", "127.0.0.1"),
        ("CB_PATH", "/v2/prices"),
        ("QUOTE_MAX_AGE_S", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A binary of this workspace: in `CLUSTER_BIN_DIR`, else beside the running program (a test runs in `deps` below that).
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let running = std::env::current_exe().context("could not find the path of this program")?;
    let folder = match std::env::var_os("CLUSTER_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let folder = running.parent().context("this program has no folder")?;
            if folder.ends_with("deps") {
                folder.parent().unwrap_or(folder)
            } else {
                folder
            }
            .to_owned()
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!(
            "{} is missing: build it with `cargo build --release -p {name}`",
            path.display()
        );
    }
    Ok(path)
}
