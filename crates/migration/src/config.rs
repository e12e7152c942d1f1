//! The configuration, from the environment.

use common::endpoints::{Database, Listen, Login, Queue};
use common::env::Env;

use crate::roles::Role;

/// The configuration of `migration`, the only service that connects to both databases.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) listen: Listen,
    pub(crate) write_model: Database,
    pub(crate) read_model: Database,
    pub(crate) write_model_roles: Vec<Role>,
    pub(crate) read_model_roles: Vec<Role>,
    pub(crate) queue: Option<Queue>,
}

impl Config {
    /// Reads `SERVICE_…`, `WRITE_MODEL_DB_…`, `READ_MODEL_DB_…`, and what is optional: the roles of the services and of operators, `CREATE_BUY_ORDER_DB_…`,
    /// `BUY_ORDER_VOIDER_DB_…`, `READ_MODEL_SYNC_DB_…`, `FETCH_BUY_ORDERS_DB_…`, and the broker, `Q_…`, if there is `Q_HOST`.
    pub fn from_env(env: &mut Env) -> Self {
        let write_model_roles = [
            Login::optional(env, "CREATE_BUY_ORDER_DB").map(Role::create_buy_order),
            Login::optional(env, "BUY_ORDER_VOIDER_DB").map(Role::buy_order_voider),
        ];
        let read_model_roles = [
            Login::optional(env, "READ_MODEL_SYNC_DB").map(Role::read_model_sync),
            Login::optional(env, "FETCH_BUY_ORDERS_DB").map(Role::fetch_buy_orders),
        ];
        Self {
            listen: Listen::from_env(env),
            write_model: Database::from_env(env, "WRITE_MODEL_DB"),
            read_model: Database::from_env(env, "READ_MODEL_DB"),
            write_model_roles: write_model_roles.into_iter().flatten().collect(),
            read_model_roles: read_model_roles.into_iter().flatten().collect(),
            queue: Queue::optional(env),
        }
    }
}
