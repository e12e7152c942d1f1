//! `scripts/check_settings.sh` refuses what the services refuse, in their words, and accepts what they accept. So nobody waits for a build to
//! learn of a mistake in `.env`.

mod kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::ensure;
use cluster::Service;

use kinds::KINDS;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The arguments with which the script checks every variable.
const ALL: [&str; 2] = ["--docker", "--observe"];

type Settings = BTreeMap<String, String>;

fn env_file() -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(format!("{ROOT}/.env"))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// What the script says is wrong, if these override `.env`.
fn said_by_script(overrides: &Settings, arguments: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new(format!("{ROOT}/scripts/check_settings.sh"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(overrides)
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    let faults: BTreeSet<String> = said
        .lines()
        .filter_map(|line| Some(line.strip_prefix("  ")?.to_owned()))
        .collect();
    let code = if faults.is_empty() { 0 } else { 1 };
    ensure!(output.status.code() == Some(code), "{:?}: {said}", output.status);
    ensure!(!said.contains("hush"), "a password was printed: {said}");
    Ok(faults)
}

/// What the containers of the services say is wrong, with the names of `.env`.
fn said_by_services(overrides: &Settings) -> anyhow::Result<BTreeSet<String>> {
    // A service without a fault would start.
    const ALWAYS: &str = "SERVICE_HOST is malformed: \"a b\" is neither a host name nor an IP address";
    let mut contract = env_file()?;
    // Where it is not tested: a service that ends waits a moment for the log.
    contract.insert("LOGGING_HOST".to_owned(), String::new());
    contract.extend(overrides.clone());
    contract.insert("SERVICE_HOST".to_owned(), "a b".to_owned());
    let mut running = Vec::new();
    for service in Service::ALL {
        let prefix = service.name().to_uppercase();
        let mut environment = service.environment(&contract);
        let port = contract.get(&format!("{prefix}_PORT")).cloned();
        environment.insert("SERVICE_PORT".to_owned(), port.unwrap_or_default());
        let process = Command::new(service.binary()?)
            .env_clear()
            .envs(&environment)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        running.push((prefix, process));
    }
    let mut faults = BTreeSet::new();
    for (prefix, process) in running {
        let output = process.wait_with_output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(1) && said.contains(ALWAYS),
            "{prefix}: {said}"
        );
        let lines = said.lines().filter_map(|line| line.strip_prefix("  "));
        for line in lines.filter(|line| *line != ALWAYS) {
            let own = [
                ("WRITE_MODEL_DB_", "DB_"),
                ("READ_MODEL_DB_", "DB_"),
                ("Q_", "Q_"),
            ]
            .iter()
            .filter_map(|(group, server)| Some(format!("{prefix}_{server}{}", line.strip_prefix(group)?)))
            .find(|own| contract.contains_key(own.split(' ').next().unwrap_or_default()));
            let line = own.unwrap_or_else(|| line.to_owned());
            let line = line.replace("SERVICE_PORT", &format!("{prefix}_PORT"));
            // Files for passwords are for deployments with other files of Compose.
            faults.insert(
                match (line.split_once(" (or "), line.ends_with("_FILE) is missing")) {
                    (Some((name, _)), true) => format!("{name} is missing"),
                    _ => line,
                },
            );
        }
    }
    Ok(faults)
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Whether a fault is one of this variable.
fn names(faults: &BTreeSet<String>, name: &str) -> bool {
    faults.iter().any(|line| line.split(' ').next() == Some(name))
}

#[test]
fn every_variable_of_the_env_file_is_checked() -> anyhow::Result<()> {
    let checked: BTreeSet<String> = KINDS
        .iter()
        .flat_map(|kind| kind.names)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(env_file()?.into_keys().collect::<BTreeSet<_>>(), checked);
    assert_eq!(said_by_script(&Settings::new(), &ALL)?, BTreeSet::new());
    assert_eq!(said_by_script(&Settings::new(), &["--native"])?, BTreeSet::new());
    Ok(())
}

/// The values of a kind are dealt out to its variables, as many at a time as there are.
#[test]
fn the_script_refuses_what_the_services_refuse_and_accepts_what_they_accept() -> anyhow::Result<()> {
    for kind in KINDS {
        let faulty = kind.faulty.iter().map(|value| (*value, true));
        let values: Vec<_> = faulty
            .chain(kind.good.iter().map(|value| (*value, false)))
            .collect();
        let mut left = values.iter().cycle();
        for _ in 0..values.len().div_ceil(kind.names.len()) {
            let dealt: Vec<_> = kind.names.iter().zip(left.by_ref()).collect();
            let pairs: Vec<_> = dealt.iter().map(|(name, (value, _))| (**name, *value)).collect();
            let overrides = settings(&pairs);
            let script = said_by_script(&overrides, &ALL)?;
            for (name, (value, is_faulty)) in dealt {
                ensure!(
                    names(&script, name) == *is_faulty,
                    "{name}={value:?}: {script:#?}"
                );
            }
            match kind.reason {
                Some(reason) => ensure!(
                    script.iter().all(|line| line.ends_with(reason)),
                    "{reason}: {script:#?}"
                ),
                None => assert_eq!(script, said_by_services(&overrides)?, "{overrides:#?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn all_faults_are_named_at_once() -> anyhow::Result<()> {
    let mut faulty = Settings::new();
    for (name, value) in KINDS
        .iter()
        .flat_map(|kind| kind.names.iter().zip(kind.faulty.iter().cycle()))
    {
        faulty.entry((*name).to_owned()).or_insert((*value).to_owned());
    }
    let said = said_by_script(&faulty, &ALL)?;
    for name in faulty.keys() {
        assert!(names(&said, name), "{name} is not among: {said:#?}");
    }
    assert!(faulty.len() > 80, "{}", faulty.len());
    Ok(())
}

#[test]
fn faults_of_several_values_are_those_of_the_services() -> anyhow::Result<()> {
    const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let jwt = [("AUTH_MODE", "jwt"), ("AUTH_ISSUER", "i"), ("AUTH_AUDIENCE", "a")];
    let url = ("AUTH_JWKS_URL", "https://issuer.example/keys");
    for (together, how_many) in [
        (&[("OPS_PORT", "8080")][..], 6),
        (&[("OPS_PORT", "9000"), ("Q_PORT", "9000")], 0),
        (
            &[
                ("ORDER_MIN_BTC", "5"),
                ("ORDER_MAX_BTC", "4.5"),
                ("ORDER_MAX_BTC_PER_CLIENT", "4.99999999"),
            ],
            2,
        ),
        (&[("ORDER_MIN_BTC", "5"), ("ORDER_MAX_BTC", "5.0")], 0),
        (&[("SERVICE_TLS_CERT_FILE", HERE)], 1),
        (&[("SERVICE_TLS_KEY_FILE", HERE)], 1),
        (&[("AUTH_MODE", "off")], 1),
        (&[("AUTH_MODE", "jwt")], 3),
        (&[("AUTH_MODE", "jwt"), url, ("AUTH_JWKS_REFETCH_S", "soon")], 3),
        (&[url, ("AUTH_JWKS_REFETCH_S", "soon")], 0),
        (&[&jwt[..], &[url]].concat(), 0),
        (&[&jwt[..], &[("AUTH_JWKS_URL", "keys")]].concat(), 1),
        (
            &[("BUY_ORDER_VOIDER_DB_USER", ""), ("BUY_ORDER_VOIDER_DB_PWD", "")],
            0,
        ),
        (&[("DEPLOYMENT", "production")], 15),
    ] {
        let together = settings(together);
        let script = said_by_script(&together, &["--docker"])?;
        assert_eq!(script, said_by_services(&together)?, "{together:?}");
        assert_eq!(script.len(), how_many, "{script:#?}");
    }
    // The services also say what is in the file.
    for (name, mode) in [
        ("WRITE_MODEL_DB_CA_FILE", "WRITE_MODEL_DB_SSLMODE=verify-full"),
        ("READ_MODEL_DB_CA_FILE", "READ_MODEL_DB_SSLMODE=verify-full"),
        ("Q_CA_FILE", "Q_PROTOCOL=amqps"),
    ] {
        let line = format!("{name} is set, but certificates are verified with {mode} only");
        let alone = settings(&[(name, HERE)]);
        assert!(said_by_script(&alone, &["--docker"])?.contains(&line));
        assert!(said_by_services(&alone)?.contains(&line));
    }
    let equal = settings(&[("Q_EXT_ADMIN_PORT", "05433")]);
    let said = said_by_script(&equal, &["--docker"])?;
    let wanted = "Q_EXT_ADMIN_PORT and WRITE_MODEL_DB_EXT_PORT are both 5433: set one to another port";
    assert_eq!(said, [wanted.to_owned()].into());
    Ok(())
}

/// Natively the servers are on this machine, whatever `.env` says of hosts, and the options of ./run.sh replace some values.
#[test]
fn what_a_cluster_does_not_read_may_be_anything() -> anyhow::Result<()> {
    let of_containers = settings(&[
        ("WRITE_MODEL_DB_HOST", "a b"),
        ("Q_HOST", ""),
        ("Q_PROTOCOL", "x"),
        ("READ_MODEL_DB_SSLMODE", "x"),
        ("MIGRATION_PORT", "x"),
        ("OPS_PORT", "x"),
        ("LOGGING_HOST", "a b"),
        ("POSTGRES_IMAGE", ""),
        ("TLS_FOLDER", "x"),
        ("Q_CA_FILE", "x"),
        ("ENTRY_CONNECTIONS_PER_CLIENT", "x"),
    ]);
    assert_eq!(said_by_script(&of_containers, &["--native"])?, BTreeSet::new());
    let said = said_by_script(&of_containers, &["--docker"])?;
    assert!(of_containers.keys().all(|name| names(&said, name)), "{said:#?}");
    let of_observers = settings(&[
        ("GRAFANA_EXT_PORT", "8777"),
        ("JAEGER_IMAGE", ""),
        ("RUNBOOKS_URL", "x"),
    ]);
    assert_eq!(said_by_script(&of_observers, &["--docker"])?, BTreeSet::new());
    assert_eq!(said_by_script(&of_observers, &ALL)?.len(), 3);
    let replaced = settings(&[("CB_HOST", "a b"), ("AUTH_MODE", "x")]);
    assert_eq!(said_by_script(&replaced, &["--native"])?.len(), 2);
    let options = ["--native", "--prices", "simulator", "--auth"];
    assert_eq!(said_by_script(&replaced, &options)?, BTreeSet::new());
    Ok(())
}

/// A server of PostgreSQL is never started as root.
#[test]
fn a_port_where_a_program_may_not_listen_is_no_taken_port() -> anyhow::Result<()> {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
    let port = settings(&[("WRITE_MODEL_DB_EXT_PORT", "81")]);
    let said = said_by_script(&port, &["--native"])?;
    let sentence = "WRITE_MODEL_DB_EXT_PORT is 81, and its program may not listen below port";
    let refused = said.iter().any(|line| line.starts_with(sentence));
    assert_eq!(refused, first.trim().parse::<u16>()? > 81, "{said:?}");
    assert_eq!(said_by_script(&port, &["--docker"])?, BTreeSet::new());
    Ok(())
}
