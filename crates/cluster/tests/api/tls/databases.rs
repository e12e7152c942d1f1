//! `…_DB_SSLMODE=verify-full` and `…_DB_CA_FILE`, of all services and `migration`.

use cluster::{Cluster, Options, Service, wait_until};
use sqlx::{AssertSqlSafe, PgPool};

use super::certificates::{Certificate, Certificates, Shown};
use super::{LIMIT, assert_no_restart, seen, waits_with};

use Service::{CreateBuyOrder, FetchBuyOrders, Migration, ReadModelSync};

/// Both servers show this certificate from their next connection on.
pub(super) async fn show(cluster: &Cluster, certificate: &Certificate) -> anyhow::Result<()> {
    for pool in [cluster.write_model(), cluster.read_model()] {
        place(pool, "server.crt", &certificate.chain).await?;
        place(pool, "server.key", &certificate.key).await?;
        for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(pool).await?;
        }
    }
    Ok(())
}

/// Writes a file that only the server may read.
async fn place(pool: &PgPool, name: &str, content: &str) -> anyhow::Result<()> {
    let write = format!(
        "COPY (SELECT regexp_split_to_table('{}', '\n')) TO PROGRAM 'umask 077; cat >{name}'",
        content.trim_end()
    );
    sqlx::raw_sql(AssertSqlSafe(write)).execute(pool).await?;
    Ok(())
}

/// All services verify the servers of both models.
pub(super) fn verify(cluster: &Cluster, certificates: &Certificates) {
    let ca_file = certificates.ca_file().display().to_string();
    for service in Service::OF_ORDERS {
        for model in ["WRITE_MODEL", "READ_MODEL"] {
            for (name, value) in [
                ("HOST", "localhost"),
                ("SSLMODE", "verify-full"),
                ("CA_FILE", &ca_file),
            ] {
                cluster.set_env(service, &format!("{model}_DB_{name}"), value);
            }
        }
    }
}

#[tokio::test]
async fn a_database_that_cannot_prove_who_it_is_is_refused_and_trusted_again_without_a_restart()
-> anyhow::Result<()> {
    const EVENT: &str = "failed_to_connect_to_database";
    let mut certificates = Certificates::new()?;
    let cluster = Cluster::start(Options {
        services: Vec::new(),
        ..Options::default().with_own_servers()
    })
    .await?;
    verify(&cluster, &certificates);
    show(&cluster, &certificates.issue(Shown::OfAnotherAuthority)?).await?;
    let is_refused = async |certificates: &Certificates, shown: Shown, services: &[Service]| {
        let seen: Vec<usize> = services.iter().map(|service| seen(&cluster, *service)).collect();
        show(&cluster, &certificates.issue(shown)?).await?;
        for (service, seen) in services.iter().zip(seen) {
            waits_with(&cluster, *service, seen, EVENT, shown.refusal()).await?;
        }
        anyhow::Ok(())
    };

    cluster.launch(Migration)?;
    for shown in Shown::WRONG {
        is_refused(&certificates, shown, &[Migration]).await?;
    }
    show(&cluster, &certificates.issue(Shown::Right)?).await?;
    cluster.wait_until_healthy(Migration).await?;

    let others = [CreateBuyOrder, ReadModelSync, FetchBuyOrders];
    show(&cluster, &certificates.issue(Shown::OfAnotherAuthority)?).await?;
    for service in others {
        cluster.launch(service)?;
    }
    for shown in Shown::WRONG {
        is_refused(&certificates, shown, &others).await?;
    }
    // …_CA_FILE is read again, too.
    certificates.change_authority()?;
    show(&cluster, &certificates.issue(Shown::Right)?).await?;
    for service in others {
        cluster.wait_until_healthy(service).await?;
        let url = cluster.url(service) + "/readyz";
        wait_until("it is ready", LIMIT, async || {
            Ok(cluster.http().get(&url).send().await?.status() == 200)
        })
        .await?;
    }
    assert_no_restart(&cluster);
    Ok(())
}
