//! A service without its environment names everything that is missing, at once.

use std::process::Command;

use anyhow::ensure;
use cluster::Service;

const WRITE_MODEL: [&str; 5] = [
    "WRITE_MODEL_DB_HOST",
    "WRITE_MODEL_DB_PORT",
    "WRITE_MODEL_DB_NAME",
    "WRITE_MODEL_DB_USER",
    "WRITE_MODEL_DB_PWD (or WRITE_MODEL_DB_PWD_FILE)",
];
const READ_MODEL: [&str; 5] = [
    "READ_MODEL_DB_HOST",
    "READ_MODEL_DB_PORT",
    "READ_MODEL_DB_NAME",
    "READ_MODEL_DB_USER",
    "READ_MODEL_DB_PWD (or READ_MODEL_DB_PWD_FILE)",
];
const MIGRATION: [&str; 2] = ["MIGRATION_HOST", "MIGRATION_PORT"];
const QUEUE: [&str; 4] = ["Q_HOST", "Q_PORT", "Q_USER", "Q_PWD (or Q_PWD_FILE)"];
const BTC_PRICE: [&str; 2] = ["BTC_PRICE_HOST", "BTC_PRICE_PORT"];
const COINBASE: [&str; 3] = ["CB_HOST", "CB_PORT", "CB_PATH"];

fn required_by(service: Service) -> Vec<&'static str> {
    let own: &[&[&str]] = match service {
        Service::BtcPrice => &[&COINBASE],
        Service::CreateBuyOrder => &[&WRITE_MODEL, &MIGRATION, &QUEUE, &BTC_PRICE],
        Service::FetchBuyOrders => &[&READ_MODEL, &MIGRATION],
        Service::Migration => &[&WRITE_MODEL, &READ_MODEL],
        Service::ReadModelSync => &[&READ_MODEL, &MIGRATION, &QUEUE],
    };
    [&["SERVICE_HOST", "SERVICE_PORT"], own.concat().as_slice()].concat()
}

fn named_as_missing(service: Service, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = Command::new(service.binary()?)
        .args(arguments)
        .env_clear()
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let stderr = String::from_utf8(output.stderr)?;
    let missing = stderr.lines().filter_map(|line| line.strip_suffix(" is missing"));
    Ok(missing.map(|name| name.trim().to_owned()).collect())
}

#[test]
fn an_empty_environment_is_refused_with_every_missing_name_and_no_other() -> anyhow::Result<()> {
    for service in Service::ALL {
        assert_eq!(
            named_as_missing(service, &[])?,
            required_by(service),
            "{service:?}"
        );
    }
    let once = named_as_missing(Service::Migration, &["--once"])?;
    assert_eq!(once, required_by(Service::Migration));
    Ok(())
}
