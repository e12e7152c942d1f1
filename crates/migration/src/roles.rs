//! The roles of the services: each may do in its database what it needs, and nothing else.

use common::database;
use common::endpoints::{Database, Login};
use postgres_protocol::password::scram_sha_256;
use sqlx::{PgConnection, Row as _};

use crate::schema::{Failure, acquire, query};

/// A privilege on an object: the kind of the object, its name, and the privilege.
type Privilege = (Object, &'static str, &'static str);

#[derive(Debug, Clone, Copy)]
enum Object {
    Schema,
    Table,
    /// One column of a table.
    Column(&'static str),
    Function,
}

impl Object {
    /// The statement that gives the privilege.
    fn grant(self, on: &str, privilege: &str, role: &str) -> String {
        match self {
            Self::Schema => format!("GRANT {privilege} ON SCHEMA {on} TO {role}"),
            Self::Table => format!("GRANT {privilege} ON TABLE {on} TO {role}"),
            Self::Column(column) => format!("GRANT {privilege} ({column}) ON TABLE {on} TO {role}"),
            Self::Function => format!("GRANT {privilege} ON FUNCTION {on} TO {role}"),
        }
    }

    /// The expression that tells whether the role has the privilege; the role is a literal.
    fn has(self, on: &str, privilege: &str, role: &str) -> String {
        match self {
            Self::Schema => format!("has_schema_privilege({role}, '{on}', '{privilege}')"),
            Self::Table => format!("has_table_privilege({role}, '{on}', '{privilege}')"),
            Self::Column(column) => {
                format!("has_column_privilege({role}, '{on}', '{column}', '{privilege}')")
            }
            Self::Function => format!("has_function_privilege({role}, '{on}', '{privilege}')"),
        }
    }
}

/// Orders come in by `accept_orders` alone. Its version without a limit is for releases before this one, to which one may have to go back.
const CREATE_BUY_ORDER: &[Privilege] = &[
    (Object::Schema, "public", "USAGE"),
    (
        Object::Function,
        "accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[])",
        "EXECUTE",
    ),
    (
        Object::Function,
        "accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[], numeric)",
        "EXECUTE",
    ),
    (Object::Function, "count_orders_of_clients(bigint)", "EXECUTE"),
    (Object::Function, "lock_running_total()", "EXECUTE"),
    (Object::Table, "client", "SELECT"),
    (Object::Table, "currency", "SELECT"),
    (Object::Table, "buy_order", "SELECT"),
    (Object::Table, "buy_order_void", "SELECT"),
    (Object::Table, "buy_order_running_total", "SELECT"),
    (Object::Table, "outbox", "SELECT"),
    (Object::Table, "outbox", "DELETE"),
    (Object::Table, "relay_lease", "SELECT"),
    (Object::Table, "relay_lease", "UPDATE"),
];

/// Of operators. No service but `migration` has its password.
const BUY_ORDER_VOIDER: &[Privilege] = &[
    (Object::Schema, "public", "USAGE"),
    (Object::Function, "void_order(uuid, text)", "EXECUTE"),
];

const READ_MODEL_SYNC: &[Privilege] = &[
    (Object::Schema, "public", "USAGE"),
    (Object::Table, "buy_order_read_model", "SELECT"),
    (Object::Table, "buy_order_read_model", "INSERT"),
    // A void marks its order, and changes nothing else of it.
    (Object::Column("voided_at"), "buy_order_read_model", "UPDATE"),
    (Object::Table, "buy_order_void_read_model", "SELECT"),
    (Object::Table, "buy_order_void_read_model", "INSERT"),
];

const FETCH_BUY_ORDERS: &[Privilege] = &[
    (Object::Schema, "public", "USAGE"),
    (Object::Table, "buy_order_read_model", "SELECT"),
];

/// The role of a service, or of an operator, in a database.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    login: Login,
    privileges: &'static [Privilege],
}

impl Role {
    pub(crate) fn create_buy_order(login: Login) -> Self {
        Self {
            login,
            privileges: CREATE_BUY_ORDER,
        }
    }

    pub(crate) fn buy_order_voider(login: Login) -> Self {
        Self {
            login,
            privileges: BUY_ORDER_VOIDER,
        }
    }

    pub(crate) fn read_model_sync(login: Login) -> Self {
        Self {
            login,
            privileges: READ_MODEL_SYNC,
        }
    }

    pub(crate) fn fetch_buy_orders(login: Login) -> Self {
        Self {
            login,
            privileges: FETCH_BUY_ORDERS,
        }
    }
}

/// Makes the roles that are missing, sets passwords that the server does not accept, and grants what is missing. Only reads when nothing is.
pub(crate) async fn bring_up_to_date(database: &Database, roles: &[Role]) -> Result<(), Failure> {
    let mut session = database::session(database).await.map_err(Failure::Connect)?;
    for role in roles {
        let remedies = remedies(&mut session, database, role).await?;
        if remedies.is_empty() {
            continue;
        }
        let mut lock = database::session(database).await.map_err(Failure::Connect)?;
        acquire(&mut lock).await?;
        for remedy in remedies {
            query(&mut lock, &remedy).await.map_err(Failure::Role)?;
        }
        query(&mut lock, "COMMIT").await.map_err(Failure::Role)?;
        tracing::info!(
            event = "database_role_set_up",
            database = database.name,
            role = role.login.user
        );
    }
    warn_of_excess(&mut session, database, roles).await
}

/// The statements that give the role what it lacks.
async fn remedies(
    session: &mut PgConnection,
    database: &Database,
    role: &Role,
) -> Result<Vec<String>, Failure> {
    let (name, literal) = (quoted(&role.login.user, '"'), quoted(&role.login.user, '\''));
    let exists = query(
        session,
        &format!("SELECT FROM pg_roles WHERE rolname = {literal}"),
    )
    .await?;
    let mut remedies = Vec::new();
    // The server gets a hash, because it may log statements.
    let password = || scram_sha_256(role.login.password.expose().as_bytes());
    if exists.is_empty() {
        // Roles belong to the server: another of its databases may be making the same one.
        let create = format!(
            "BEGIN CREATE ROLE {name} LOGIN PASSWORD '{}';
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END",
            password()
        );
        remedies.push(format!("DO {}", quoted(&create, '\'')));
    } else if !accepts(database, &role.login).await? {
        remedies.push(format!("ALTER ROLE {name} LOGIN PASSWORD '{}'", password()));
    }
    for (object, on, privilege) in role.privileges {
        let is_missing = if exists.is_empty() {
            true
        } else {
            let missing = format!("SELECT NOT {} AS missing", object.has(on, privilege, &literal));
            let rows = query(session, &missing).await?;
            rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("missing")?
        };
        if is_missing {
            remedies.push(object.grant(on, privilege, &name));
        }
    }
    Ok(remedies)
}

/// Whether the server accepts the login.
async fn accepts(database: &Database, login: &Login) -> Result<bool, Failure> {
    /// A wrong password, or none; no such role; and what a pooler says to that.
    const REFUSED: [&str; 3] = ["28P01", "28000", "08P01"];
    let Login { user, password } = login.clone();
    let endpoint = Database {
        user,
        password,
        ..database.clone()
    };
    match database::session(&endpoint).await {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(refusal))
            if refusal.code().is_some_and(|code| REFUSED.contains(&&*code)) =>
        {
            Ok(false)
        }
        Err(error) => Err(Failure::Connect(error)),
    }
}

/// Logs a warning for each role that may do more than it needs: a superuser, or a service that may do what the owner may.
async fn warn_of_excess(
    session: &mut PgConnection,
    database: &Database,
    roles: &[Role],
) -> Result<(), Failure> {
    let services: Vec<String> = roles.iter().map(|role| quoted(&role.login.user, '\'')).collect();
    let excess = format!(
        "SELECT rolname::text FROM pg_roles
          WHERE rolname = current_user AND rolsuper
             OR rolname = ANY (ARRAY[{}]::name[]) AND (rolsuper OR pg_has_role(oid, current_user, 'MEMBER'))
          ORDER BY rolname",
        services.join(", ")
    );
    for row in query(session, &excess).await? {
        let role: String = row.try_get("rolname")?;
        tracing::warn!(
            event = "database_role_may_do_too_much",
            database = database.name,
            role
        );
    }
    Ok(())
}

/// An identifier in double quotes, or a literal in single ones.
fn quoted(text: &str, quote: char) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}
