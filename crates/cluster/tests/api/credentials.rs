//! User names and passwords with any characters: services log in to the real servers with them, from every source.

use std::io::Write as _;

use cluster::{BrokerAddress, Cluster, DatabaseAddress, Options, Service};
use common::broker::{Connector, Session, topology};
use common::database::connect_once;
use common::endpoints::{Database, Queue};
use common::env::Env;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use sqlx::AssertSqlSafe;

/// Names and passwords with every printable ASCII character and some others, at the beginning, in the middle and at the end, and random ones.
fn credentials() -> anyhow::Result<Vec<(String, String)>> {
    let characters = (' '..='~').chain("äßéЖ漢€\u{a0}".chars());
    let each = characters.map(|c| (format!("{c}a{c}b{c}"), format!("{c}c{c}d{c}")));
    let mut all: Vec<(String, String)> = each.collect();
    let mut runner = TestRunner::deterministic();
    for _ in 0..32 {
        let text = |least: usize, most: usize| format!("[ -~äßéЖ漢€]{{{least},{most}}}");
        let pair = (text(3, 20).as_str(), text(1, 60).as_str())
            .new_tree(&mut runner)
            .map_err(anyhow::Error::msg)?;
        all.push(pair.current());
    }
    Ok(all)
}

/// The variables of a user: with the password, and with a file that contains it.
fn environments(
    prefix: &str,
    pairs: &[(&str, &str)],
    password: &str,
) -> anyhow::Result<(tempfile::NamedTempFile, [Env; 2])> {
    let mut file = tempfile::NamedTempFile::new()?;
    write!(file, "{password}\r\n")?;
    let path = file.path().display().to_string();
    let ways = [
        (format!("{prefix}_PWD"), password),
        (format!("{prefix}_PWD_FILE"), path.as_str()),
    ];
    let environments = ways.map(|(name, value)| {
        let others = pairs
            .iter()
            .map(|(name, value)| (format!("{prefix}_{name}"), *value));
        Env::from_pairs(others.chain([(name, value)]))
    });
    Ok((file, environments))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn logs_in_to_database(
    server: &DatabaseAddress,
    database: &str,
    (user, password): (&str, &str),
) -> anyhow::Result<()> {
    let port = server.port.to_string();
    let pairs = [
        ("HOST", server.host.as_str()),
        ("PORT", &port),
        ("NAME", database),
        ("USER", user),
    ];
    let (_file, environments) = environments("X", &pairs, password)?;
    for mut env in environments {
        let endpoint = Database::from_env(&mut env, "X");
        connect_once(&env.finish(endpoint)?, "write_model").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_service_logs_in_to_postgresql_with_any_name_and_password() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let server = &cluster.addresses().write_model;
    let mark = uuid::Uuid::new_v4().simple().to_string();
    for (name, password) in credentials()? {
        // A role belongs to the whole server, which other tests also use. A name can have 63 bytes.
        let user: String = format!("{name}{}", &mark[..6]);
        let statement = format!(
            "CREATE ROLE {} LOGIN PASSWORD '{}'",
            quoted(&user),
            password.replace('\'', "''")
        );
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(cluster.write_model())
            .await?;
        let outcome = logs_in_to_database(server, &server.name, (&user, &password)).await;
        sqlx::raw_sql(AssertSqlSafe(format!("DROP ROLE {}", quoted(&user))))
            .execute(cluster.write_model())
            .await?;
        // sqlx sends the name within a comma-separated list, so the service refuses commas at its start.
        let refused = outcome
            .as_ref()
            .is_err_and(|error| error.to_string().contains("X_USER"));
        assert_eq!(refused, user.contains(','), "{user:?} {password:?}: {outcome:?}");
        assert!(refused || outcome.is_ok(), "{user:?} {password:?}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn what_the_login_of_postgresql_cannot_carry_is_refused_by_name() {
    for (user, password, name) in [
        ("a,b", "p", "X_USER"),
        ("a", "p😀", "X_PWD"),
        ("😀", "p", "X_USER"),
        ("a", "p\u{7}", "X_PWD"),
    ] {
        let mut env = Env::from_pairs([
            ("X_HOST", "h"),
            ("X_PORT", "1"),
            ("X_NAME", "n"),
            ("X_USER", user),
            ("X_PWD", password),
        ]);
        let endpoint = Database::from_env(&mut env, "X");
        let faults = env
            .finish(endpoint)
            .map(drop)
            .map_err(|faults| faults.to_string());
        assert!(
            faults.as_ref().is_err_and(|said| said.contains(name)),
            "{user:?} {password:?}: {faults:?}"
        );
    }
}

#[tokio::test]
async fn migration_and_the_services_work_in_a_database_of_any_name() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let (name, password) = (
        format!("{} \"' #$%\\/:;@?&=ä€", &mark[..6]),
        " pa#ss\"'\\ $x {%} @/:,ä€ ",
    );
    for (pool, model) in [
        (cluster.write_model(), "WRITE_MODEL"),
        (cluster.read_model(), "READ_MODEL"),
    ] {
        for statement in [
            format!(
                "CREATE ROLE {} LOGIN CREATEROLE PASSWORD '{}'",
                quoted(&name),
                password.replace('\'', "''")
            ),
            format!("CREATE DATABASE {} OWNER {}", quoted(&name), quoted(&name)),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
        }
        for (variable, value) in [("NAME", name.as_str()), ("USER", &name), ("PWD", password)] {
            cluster.set_env(Service::Migration, &format!("{model}_DB_{variable}"), value);
        }
    }
    let migrated = cluster.admin(Service::Migration, &["--once"], "").await?;
    let server = &cluster.addresses().write_model;
    let outcome = logs_in_to_database(server, &name, (&name, password)).await;
    for pool in [cluster.write_model(), cluster.read_model()] {
        for statement in [
            format!("DROP DATABASE {} WITH (FORCE)", quoted(&name)),
            format!("DROP ROLE {}", quoted(&name)),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await?;
        }
    }
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    outcome
}

async fn manage(cluster: &Cluster, request: reqwest::RequestBuilder) -> anyhow::Result<()> {
    let broker = cluster.queue();
    let answer = request
        .basic_auth(&broker.user, Some(&broker.password))
        .send()
        .await?;
    answer.error_for_status()?;
    Ok(())
}

#[tokio::test]
async fn a_service_logs_in_to_rabbitmq_with_any_name_and_password() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::servers_only()).await?;
    let (http, broker) = (cluster.http(), cluster.queue());
    let mark = uuid::Uuid::new_v4().simple().to_string();
    for (name, password) in credentials()? {
        let user = BrokerAddress {
            user: format!("{name}{mark}"),
            ..broker.clone()
        };
        let [account, permissions] =
            ["users/{user}", "permissions/{vhost}/{user}"].map(|resource| user.api(resource));
        let made = serde_json::json!({"password": password, "tags": ""});
        manage(&cluster, http.put(&account).json(&made)).await?;
        let all = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
        manage(&cluster, http.put(&permissions).json(&all)).await?;
        let port = broker.port.to_string();
        let pairs = [
            ("HOST", broker.host.as_str()),
            ("PORT", &port),
            ("VHOST", &broker.vhost),
            ("USER", &user.user),
        ];
        let (_file, environments) = environments("Q", &pairs, &password)?;
        for mut env in environments {
            let queue = Queue::from_env(&mut env);
            let connector = Connector {
                endpoint: env.finish(queue)?,
                queue: topology::BUY_ORDER_QUEUE,
                name: "test",
            };
            let session = Session::open_declaring(&connector).await;
            let session = session.map_err(|error| anyhow::anyhow!("{name:?} {password:?}: {error}"))?;
            session.close().await;
        }
        manage(&cluster, http.delete(&account)).await?;
    }
    Ok(())
}
