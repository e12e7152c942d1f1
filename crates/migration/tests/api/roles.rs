//! The roles of the services: what they may not do is refused by the server, whoever has their password.

use cluster::{Cluster, DatabaseAddress, Options, Service, create_owner};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{Refusal, applied, databases, named, once, refusal, undo_version_6};

const PERMISSION_DENIED: &str = "42501";

/// A session as the role that a service has in a database.
async fn as_service(cluster: &Cluster, service: Service) -> anyhow::Result<PgPool> {
    let (login, address) = match service {
        Service::CreateBuyOrder => ("WRITE_MODEL_DB", &cluster.addresses().write_model),
        _ => ("READ_MODEL_DB", &cluster.addresses().read_model),
    };
    as_login(cluster, service, login, address).await
}

/// A session as the role of operators who void orders. `migration` is told of it.
async fn as_voider(cluster: &Cluster) -> anyhow::Result<PgPool> {
    let address = &cluster.addresses().write_model;
    as_login(cluster, Service::Migration, "BUY_ORDER_VOIDER_DB", address).await
}

/// A session by the login that a service has in these variables.
async fn as_login(
    cluster: &Cluster,
    service: Service,
    login: &str,
    address: &DatabaseAddress,
) -> anyhow::Result<PgPool> {
    let environment = cluster.environment(service)?;
    let variable = |name: &str| environment.get(&format!("{login}_{name}")).unwrap();
    log_in(address, variable("USER"), variable("PWD")).await
}

async fn log_in(address: &DatabaseAddress, user: &str, password: &str) -> anyhow::Result<PgPool> {
    let options = address.options().username(user).password(password);
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

/// Asserts that the server refuses each statement for want of a privilege.
async fn each_is_denied(pool: &PgPool, attacks: &[&str]) -> anyhow::Result<()> {
    for attack in attacks {
        let Refusal { code, message, .. } = refusal(pool, attack).await?;
        assert_eq!(code, PERMISSION_DENIED, "{attack}: {message}");
    }
    Ok(())
}

/// What no service may do in any database.
const OF_ADMINISTRATORS: [&str; 10] = [
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/written_by_a_service'",
    "SET session_replication_role = replica",
    "ALTER SYSTEM SET fsync = off",
    "CREATE ROLE another SUPERUSER",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "CREATE DATABASE another",
    "CREATE TABLE another (id int)",
    "CREATE FUNCTION another() RETURNS int LANGUAGE sql AS 'SELECT 1'",
];

#[tokio::test]
async fn create_buy_order_may_not_change_the_book_but_by_accept_orders() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = as_service(&cluster, Service::CreateBuyOrder).await?;
    each_is_denied(&pool, &OF_ADMINISTRATORS).await?;
    each_is_denied(
        &pool,
        &[
            "ALTER TABLE buy_order DISABLE TRIGGER ALL",
            "UPDATE buy_order SET btc_amount = 1",
            "DELETE FROM buy_order",
            "TRUNCATE buy_order",
            "DROP TABLE buy_order",
            "DROP TRIGGER buy_order_is_append_only ON buy_order",
            "INSERT INTO buy_order (external_id, client_id, currency_id, currency_amount, idempotence_key, btc_rate, btc_amount)
             VALUES (gen_random_uuid(), 1, 1, 1, gen_random_uuid(), 1, 1)",
            "SELECT nextval('buy_order_id_seq')",
            "SELECT setval('buy_order_id_seq', 1000000)",
            "UPDATE buy_order_running_total SET btc_amount = 0",
            "SELECT FROM buy_order_running_total FOR UPDATE",
            "DO $$ BEGIN LOCK TABLE buy_order_running_total IN ACCESS EXCLUSIVE MODE; END $$",
            "INSERT INTO client (email) VALUES ('mallory@example.com')",
            "UPDATE currency SET dp = 0",
            "INSERT INTO outbox (type, routing_key, message_id, payload) VALUES ('x', 'x', gen_random_uuid(), '{}')",
            "UPDATE outbox SET payload = '{}'",
            "DELETE FROM relay_lease",
            "CREATE OR REPLACE FUNCTION accept_orders() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION lock_running_total",
            "SELECT * FROM void_order(gen_random_uuid(), 'room')",
            "INSERT INTO buy_order_void (buy_order_id, reason) VALUES (1, 'room')",
            "UPDATE client_running_total SET btc_amount = 0",
            "UPDATE refinery_schema_history SET checksum = '1'",
            "SELECT * FROM pg_authid",
        ],
    )
    .await
}

#[tokio::test]
async fn the_voider_may_void_orders_and_nothing_else() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = as_voider(&cluster).await?;
    each_is_denied(&pool, &OF_ADMINISTRATORS).await?;
    each_is_denied(
        &pool,
        &[
            "SELECT FROM buy_order",
            "SELECT FROM client",
            "SELECT FROM buy_order_void",
            "INSERT INTO buy_order_void (buy_order_id, reason) VALUES (1, 'more')",
            "UPDATE buy_order_running_total SET btc_amount = 0",
            "SELECT lock_running_total()",
            "SELECT count_orders_of_clients(NULL)",
            "SELECT FROM outbox",
            "SELECT * FROM accept_orders(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "SELECT * FROM accept_orders(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ],
    )
    .await?;
    let verdict: String = sqlx::query_scalar("SELECT verdict FROM void_order(gen_random_uuid(), 'none')")
        .fetch_one(&pool)
        .await?;
    assert_eq!(verdict, "unknown");
    Ok(())
}

#[tokio::test]
async fn objects_that_a_service_may_make_for_itself_do_not_stand_in_for_ours() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = as_service(&cluster, Service::CreateBuyOrder).await?;
    // The session finds its temporary tables first.
    sqlx::raw_sql(
        "CREATE TEMPORARY TABLE buy_order_running_total AS SELECT true AS singleton, 100::numeric AS btc_amount",
    )
    .execute(&pool)
    .await?;
    let verdict: String = sqlx::query_scalar(
        "SELECT verdict
           FROM accept_orders(ARRAY[gen_random_uuid()], ARRAY[1::bigint], ARRAY['USD'], ARRAY[1.0], ARRAY[gen_random_uuid()], ARRAY[1.0],
                              ARRAY[1.0], ARRAY[NULL], ARRAY[NULL], 1)",
    )
    .fetch_one(&pool)
    .await?;
    assert_eq!(verdict, "created");
    Ok(())
}

#[tokio::test]
async fn the_services_of_the_read_model_do_only_what_they_need() -> anyhow::Result<()> {
    const OF_WRITERS: [&str; 9] = [
        "UPDATE buy_order_read_model SET btc_amount = 1",
        "UPDATE buy_order_read_model SET voided_at = NULL, client_id = 2",
        "UPDATE buy_order_void_read_model SET reason = 'another'",
        "DELETE FROM buy_order_void_read_model",
        "TRUNCATE buy_order_void_read_model",
        "DROP INDEX buy_order_read_model_shown_idx",
        "DELETE FROM buy_order_read_model",
        "TRUNCATE buy_order_read_model",
        "DROP INDEX buy_order_read_model_page_idx",
    ];
    let cluster = databases().await?;
    for service in [Service::ReadModelSync, Service::FetchBuyOrders] {
        let pool = as_service(&cluster, service).await?;
        each_is_denied(&pool, &OF_ADMINISTRATORS).await?;
        // DROP needs ownership, and is refused with the same code.
        each_is_denied(&pool, &OF_WRITERS).await?;
    }
    let reader = as_service(&cluster, Service::FetchBuyOrders).await?;
    let of_the_projector = [
        "INSERT INTO buy_order_read_model SELECT * FROM buy_order_read_model",
        "UPDATE buy_order_read_model SET voided_at = now()",
        "INSERT INTO buy_order_void_read_model SELECT * FROM buy_order_void_read_model",
    ];
    each_is_denied(&reader, &of_the_projector).await?;
    let projector = as_service(&cluster, Service::ReadModelSync).await?;
    for allowed in of_the_projector {
        sqlx::raw_sql(allowed).execute(&projector).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_owner_is_no_superuser_and_reads_no_file() -> anyhow::Result<()> {
    let cluster = databases().await?;
    for address in [&cluster.addresses().write_model, &cluster.addresses().read_model] {
        let pool = log_in(address, &address.owner.user, &address.owner.password).await?;
        each_is_denied(
            &pool,
            &[
                "SELECT pg_read_file('/etc/passwd')",
                "COPY (SELECT 1) TO PROGRAM 'id'",
                "SET session_replication_role = replica",
                "CREATE ROLE another SUPERUSER",
            ],
        )
        .await?;
    }
    Ok(())
}

/// A role of the write model that no other test has.
fn role_of(cluster: &Cluster) -> String {
    cluster.addresses().write_model.name.replace("test_", "role_")
}

async fn administer(cluster: &Cluster, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(cluster.write_model())
        .await?;
    Ok(())
}

fn set_up(events: &[Value]) -> Vec<&Value> {
    named(events, "database_role_set_up")
        .into_iter()
        .filter_map(|event| event.get("role"))
        .collect()
}

#[tokio::test]
async fn a_role_is_made_and_follows_its_password_and_a_second_run_changes_nothing() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let address = &cluster.addresses().write_model;
    let role = format!("{} $$ it's \"me\" \\", role_of(&cluster));
    cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_USER", &role);
    for password in ["first", " sécond '\\\"$"] {
        cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_PWD", password);
        for set_up_now in [vec![&Value::from(role.as_str())], Vec::new()] {
            let (exit_code, events) = once(&cluster).await?;
            assert_eq!(exit_code, Some(0), "{events:?}");
            assert_eq!(set_up(&events), set_up_now, "{events:?}");
        }
        let pool = log_in(address, &role, password).await?;
        sqlx::query("SELECT FROM buy_order").execute(&pool).await?;
        pool.close().await;
    }
    assert!(log_in(address, &role, "first").await.is_err());

    administer(
        &cluster,
        format!("REVOKE DELETE ON outbox FROM \"{}\"", role.replace('"', "\"\"")),
    )
    .await?;
    let (_, events) = once(&cluster).await?;
    assert_eq!(set_up(&events).len(), 1, "{events:?}");
    let pool = log_in(address, &role, " sécond '\\\"$").await?;
    sqlx::query("DELETE FROM outbox").execute(&pool).await?;
    Ok(())
}

#[tokio::test]
async fn a_privilege_on_a_column_that_is_missing_is_granted_again() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let role = cluster.environment(Service::ReadModelSync)?["READ_MODEL_DB_USER"].clone();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "REVOKE UPDATE (voided_at) ON buy_order_read_model FROM {role}"
    )))
    .execute(cluster.read_model())
    .await?;
    let (_, events) = once(&cluster).await?;
    assert_eq!(set_up(&events), [&Value::from(role.as_str())], "{events:?}");
    let pool = as_service(&cluster, Service::ReadModelSync).await?;
    sqlx::query("UPDATE buy_order_read_model SET voided_at = now()")
        .execute(&pool)
        .await?;
    let (_, events) = once(&cluster).await?;
    assert_eq!(set_up(&events), Vec::<&Value>::new(), "{events:?}");
    Ok(())
}

#[tokio::test]
async fn a_role_that_may_do_too_much_is_a_warning() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let address = cluster.addresses().write_model.clone();
    for (user, password) in [
        (&address.user, &address.password),
        (&address.owner.user, &address.owner.password),
    ] {
        cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_USER", user);
        cluster.set_env(Service::Migration, "CREATE_BUY_ORDER_DB_PWD", password);
        let (exit_code, events) = once(&cluster).await?;
        assert_eq!(exit_code, Some(0), "{events:?}");
        let warnings = named(&events, "database_role_may_do_too_much");
        let roles: Vec<_> = warnings.iter().filter_map(|event| event.get("role")).collect();
        assert_eq!(roles, [&Value::from(user.as_str())], "{events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_database_whose_administrator_owned_everything_gets_an_owner() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    for (model, address) in [
        ("WRITE_MODEL", &cluster.addresses().write_model),
        ("READ_MODEL", &cluster.addresses().read_model),
    ] {
        cluster.set_env(Service::Migration, &format!("{model}_DB_USER"), &address.user);
        cluster.set_env(Service::Migration, &format!("{model}_DB_PWD"), &address.password);
    }
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    for (model, pool, address) in [
        (
            "WRITE_MODEL",
            cluster.write_model(),
            &cluster.addresses().write_model,
        ),
        (
            "READ_MODEL",
            cluster.read_model(),
            &cluster.addresses().read_model,
        ),
    ] {
        for _ in 0..2 {
            create_owner(address).await?;
        }
        cluster.set_env(
            Service::Migration,
            &format!("{model}_DB_USER"),
            &address.owner.user,
        );
        cluster.set_env(
            Service::Migration,
            &format!("{model}_DB_PWD"),
            &address.owner.password,
        );
        let not_ours: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> $1::text::regrole
             UNION ALL
             SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> $1::text::regrole",
        )
        .bind(&address.owner.user)
        .fetch_all(pool)
        .await?;
        assert_eq!(not_ours, Vec::<String>::new());
    }
    // The owner may apply what comes later.
    undo_version_6(cluster.write_model()).await?;
    let (exit_code, events) = once(&cluster).await?;
    assert_eq!(exit_code, Some(0), "{events:?}");
    assert!(
        applied(&events).contains(&("write_model".to_owned(), 1)),
        "{events:?}"
    );
    Ok(())
}
