//! Every service names all that is wrong with its environment at once, and nothing that it does not read.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::ensure;
use cluster::Service;

/// Variables that belong together.
struct Group {
    /// A service does not start without these.
    required: &'static [&'static str],
    /// Values that are refused.
    malformed: &'static [(&'static str, &'static str)],
}

const LISTEN: Group = Group {
    required: &["SERVICE_HOST", "SERVICE_PORT"],
    malformed: &[
        ("SERVICE_HOST", "a b"),
        ("SERVICE_PORT", "http"),
        ("OPS_PORT", "65536"),
    ],
};
const DEPLOYMENT: Group = Group {
    required: &[],
    malformed: &[("DEPLOYMENT", "prod")],
};
const LOGGING: Group = Group {
    required: &[],
    malformed: &[("LOGGING_HOST", "a b"), ("LOGGING_PORT", "x")],
};
const WRITE_MODEL: Group = Group {
    required: &[
        "WRITE_MODEL_DB_HOST",
        "WRITE_MODEL_DB_PORT",
        "WRITE_MODEL_DB_NAME",
        "WRITE_MODEL_DB_USER",
        "WRITE_MODEL_DB_PWD (or WRITE_MODEL_DB_PWD_FILE)",
    ],
    malformed: &[
        ("WRITE_MODEL_DB_PORT", "x"),
        ("WRITE_MODEL_DB_RETRY_WAIT_S", "soon"),
        ("WRITE_MODEL_DB_SSLMODE", "maybe"),
    ],
};
const READ_MODEL: Group = Group {
    required: &[
        "READ_MODEL_DB_HOST",
        "READ_MODEL_DB_PORT",
        "READ_MODEL_DB_NAME",
        "READ_MODEL_DB_USER",
        "READ_MODEL_DB_PWD (or READ_MODEL_DB_PWD_FILE)",
    ],
    malformed: &[
        ("READ_MODEL_DB_PORT", "x"),
        ("READ_MODEL_DB_RETRY_WAIT_S", "soon"),
        ("READ_MODEL_DB_SSLMODE", "maybe"),
    ],
};
const MIGRATION: Group = Group {
    required: &["MIGRATION_HOST", "MIGRATION_PORT"],
    malformed: &[("MIGRATION_PROTOCOL", "gopher"), ("MIGRATION_PORT", "65536")],
};
const QUEUE: Group = Group {
    required: &["Q_HOST", "Q_PORT", "Q_USER", "Q_PWD (or Q_PWD_FILE)"],
    malformed: &[
        ("Q_PROTOCOL", "tls"),
        ("Q_PORT", "x"),
        ("Q_CLIENT_CONNECT_RETRY_S", "soon"),
    ],
};
const BTC_PRICE: Group = Group {
    required: &["BTC_PRICE_HOST", "BTC_PRICE_PORT"],
    malformed: &[("BTC_PRICE_PROTOCOL", "ftp"), ("BTC_PRICE_PORT", "x")],
};
const COINBASE: Group = Group {
    required: &["CB_HOST", "CB_PORT", "CB_PATH"],
    malformed: &[
        ("CB_PROTOCOL", "gopher"),
        ("CB_HOST", "some one@else"),
        ("CB_PORT", "65536"),
        ("CB_PATH", "v2/prices"),
        ("CB_TIMEOUT_S", "soon"),
        ("QUOTE_MAX_AGE_S", "-2"),
        ("QUOTE_MAX_DEVIATION", "1"),
        ("QUOTE_DEVIATION_HOLD_S", "0"),
    ],
};
const ORDER_LIMITS: Group = Group {
    required: &[],
    malformed: &[
        ("ORDER_MIN_BTC", "-1"),
        ("ORDER_MAX_BTC", "100.1"),
        ("ORDER_MAX_BTC_PER_CLIENT", "all"),
    ],
};
const WATCHED: Group = Group {
    required: &[
        "BTC_PRICE_HOST",
        "BTC_PRICE_PORT",
        "CREATE_BUY_ORDER_HOST",
        "CREATE_BUY_ORDER_PORT",
        "FETCH_BUY_ORDERS_HOST",
        "FETCH_BUY_ORDERS_PORT",
        "MIGRATION_HOST",
        "MIGRATION_PORT",
        "READ_MODEL_SYNC_HOST",
        "READ_MODEL_SYNC_PORT",
    ],
    malformed: &[
        ("BTC_PRICE_PORT", "x"),
        ("MIGRATION_PORT", "65536"),
        ("READ_MODEL_SYNC_PORT", "65536"),
        ("CONSOLE_HOST", "a b"),
    ],
};
const ALL: [Group; 11] = [
    LISTEN,
    DEPLOYMENT,
    LOGGING,
    WRITE_MODEL,
    READ_MODEL,
    MIGRATION,
    QUEUE,
    BTC_PRICE,
    COINBASE,
    ORDER_LIMITS,
    WATCHED,
];

fn groups_of(service: Service) -> Vec<Group> {
    let own = match service {
        Service::BtcPrice => vec![COINBASE],
        Service::CreateBuyOrder => vec![WRITE_MODEL, MIGRATION, QUEUE, BTC_PRICE, ORDER_LIMITS],
        Service::FetchBuyOrders => vec![READ_MODEL, MIGRATION],
        Service::Migration => vec![WRITE_MODEL, READ_MODEL],
        Service::ReadModelSync => vec![READ_MODEL, MIGRATION, QUEUE],
        Service::Console => vec![WATCHED],
    };
    [vec![LISTEN, DEPLOYMENT, LOGGING], own]
        .into_iter()
        .flatten()
        .collect()
}

fn required_by(service: Service) -> BTreeSet<String> {
    let names = groups_of(service).into_iter().flat_map(|group| group.required);
    names.map(|name| (*name).to_owned()).collect()
}

/// The faults that a service finds in its environment, before it ends with 1.
fn faults(service: Service, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Vec<String>> {
    let output = Command::new(service.binary()?)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr)?;
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("  "));
    Ok(lines.map(str::to_owned).collect())
}

/// The variables that have this fault.
fn named(
    service: Service,
    arguments: &[&str],
    environment: &[(&str, &str)],
    fault: &str,
) -> anyhow::Result<BTreeSet<String>> {
    let faults = faults(service, arguments, environment)?;
    let names = faults
        .iter()
        .filter_map(|line| line.split_once(fault))
        .map(|(name, _)| name.to_owned());
    Ok(names.collect())
}

#[test]
fn an_empty_environment_is_refused_with_every_missing_name() -> anyhow::Result<()> {
    for service in Service::ALL {
        let missing = named(service, &[], &[], " is missing")?;
        assert_eq!(missing, required_by(service), "{service:?}");
    }
    let missing = named(Service::Migration, &["--once"], &[], " is missing")?;
    assert_eq!(missing, required_by(Service::Migration));
    Ok(())
}

#[test]
fn a_role_without_a_password_or_a_name_is_refused() -> anyhow::Result<()> {
    let halves = [
        ("CREATE_BUY_ORDER_DB_USER", "a"),
        ("FETCH_BUY_ORDERS_DB_PWD", "b"),
    ];
    let missing = named(Service::Migration, &[], &halves, " is missing")?;
    let of_roles: BTreeSet<String> = missing
        .difference(&required_by(Service::Migration))
        .cloned()
        .collect();
    let wanted = [
        "CREATE_BUY_ORDER_DB_PWD (or CREATE_BUY_ORDER_DB_PWD_FILE)",
        "FETCH_BUY_ORDERS_DB_USER",
    ];
    assert_eq!(of_roles, wanted.map(str::to_owned).into());
    Ok(())
}

#[test]
fn half_a_certificate_is_refused_with_the_name_of_the_other_half() -> anyhow::Result<()> {
    const HALVES: [&str; 2] = ["SERVICE_TLS_CERT_FILE", "SERVICE_TLS_KEY_FILE"];
    for service in Service::ALL {
        for (half, other) in [(HALVES[0], HALVES[1]), (HALVES[1], HALVES[0])] {
            let missing = named(service, &[], &[(half, "/dev/null")], " is missing")?;
            let mut wanted = required_by(service);
            wanted.insert(other.to_owned());
            assert_eq!(missing, wanted, "{service:?}");
        }
    }
    Ok(())
}

#[test]
fn a_broker_without_a_login_is_refused_by_migration() -> anyhow::Result<()> {
    let missing = named(Service::Migration, &[], &[("Q_HOST", "queue")], " is missing")?;
    let of_broker: BTreeSet<String> = missing
        .difference(&required_by(Service::Migration))
        .cloned()
        .collect();
    let wanted = ["Q_PORT", "Q_PWD (or Q_PWD_FILE)", "Q_USER"];
    assert_eq!(of_broker, wanted.map(str::to_owned).into());
    Ok(())
}

#[test]
fn every_malformed_value_is_named_and_none_that_the_service_does_not_read() -> anyhow::Result<()> {
    let environment: Vec<_> = ALL.iter().flat_map(|group| group.malformed).copied().collect();
    for service in Service::ALL {
        let malformed = named(service, &[], &environment, " is malformed: ")?;
        let own = groups_of(service).into_iter().flat_map(|group| group.malformed);
        let own: BTreeSet<_> = own.map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(malformed, own, "{service:?}");
    }
    Ok(())
}

/// A production deployment with the settings and passwords of `.env`, which are for development.
#[test]
fn in_production_all_that_is_for_development_is_refused_at_once() -> anyhow::Result<()> {
    let environment = [
        ("DEPLOYMENT", "production"),
        ("WRITE_MODEL_DB_PWD", "write_model_owner_password"),
        ("READ_MODEL_DB_PWD", "read_model_owner_password"),
        ("CREATE_BUY_ORDER_DB_USER", "create_buy_order"),
        ("CREATE_BUY_ORDER_DB_PWD", "create_buy_order_password"),
        ("Q_HOST", "queue"),
        ("Q_PWD", "pydist_password"),
        ("AUTH_MODE", "none"),
        ("WRITE_MODEL_DB_SSLMODE", "prefer"),
        ("READ_MODEL_DB_SSLMODE", "require"),
    ];
    let (write_model, read_model) = (
        ["WRITE_MODEL_DB_PWD", "WRITE_MODEL_DB_SSLMODE"],
        ["READ_MODEL_DB_PWD", "READ_MODEL_DB_SSLMODE"],
    );
    let queue = ["Q_PWD", "Q_PROTOCOL"];
    for (service, expected) in [
        (Service::BtcPrice, ["CB_PROTOCOL"].into()),
        (
            Service::CreateBuyOrder,
            [
                &write_model[..],
                &queue,
                &["AUTH_MODE", "BTC_PRICE_PROTOCOL", "MIGRATION_PROTOCOL"],
            ]
            .concat(),
        ),
        (
            Service::FetchBuyOrders,
            [&read_model[..], &["AUTH_MODE", "MIGRATION_PROTOCOL"]].concat(),
        ),
        (
            Service::Migration,
            [
                &write_model[..],
                &read_model,
                &queue,
                &["CREATE_BUY_ORDER_DB_PWD"],
            ]
            .concat(),
        ),
        (
            Service::ReadModelSync,
            [&read_model[..], &queue, &["MIGRATION_PROTOCOL"]].concat(),
        ),
    ] {
        let faults = faults(service, &[], &environment)?;
        let refused: BTreeSet<&str> = faults
            .iter()
            .filter(|line| line.ends_with(", which DEPLOYMENT=production refuses"))
            .filter_map(|line| Some(line.split_once(" is ")?.0))
            .collect();
        let expected: BTreeSet<&str> = expected.into_iter().collect();
        assert_eq!(refused, expected, "{service:?}");
    }
    Ok(())
}
