//! A host name of the write model with more than one address.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cluster::{Cluster, Options, Service};
use tempfile::NamedTempFile;

/// Resolvers return the first address first.
const HOSTS: &str = "127.0.0.1 localhost\n::1 two.addresses.test\n127.0.0.1 two.addresses.test\n";

#[tokio::test]
async fn where_the_first_address_of_a_host_name_is_silent_service_and_migration_connect_to_the_second()
-> anyhow::Result<()> {
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default()
    })
    .await?;
    let port = cluster.addresses().write_model.port;
    // The kernel accepts connections to it, but nothing ever answers.
    let _silent = TcpListener::bind(("::1", port)).context("the loopback interface has no IPv6")?;
    let mut hosts = NamedTempFile::new()?;
    hosts.write_all(HOSTS.as_bytes())?;
    for (service, argument) in [
        (Service::CreateBuyOrder, "checksums"),
        (Service::Migration, "--once"),
    ] {
        let program = cluster.admin_command(service, &[argument])?;
        let begun = Instant::now();
        // The process gets its own /etc/hosts.
        let ended = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg(r#"mount --bind "$1" /etc/hosts && shift && exec timeout 20 "$@""#)
            .arg("sh")
            .arg(hosts.path())
            .arg(program.get_program())
            .arg(argument)
            .env_clear()
            .envs(cluster.environment(service)?)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("WRITE_MODEL_DB_HOST", "two.addresses.test")
            .output()?;
        assert!(ended.status.success(), "{service:?}: {ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
    Ok(())
}
