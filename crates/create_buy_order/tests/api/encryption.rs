//! TLS to the write model, as configured by `WRITE_MODEL_DB_SSLMODE`, of this service and of `migration`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use cluster::{Cluster, Options, Service, wait_until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, IsCa, KeyPair};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use tempfile::NamedTempFile;

const LIMIT: Duration = Duration::from_secs(60);

/// A role that must use TLS, and one that must not.
const ENCRYPTED: &str = "encrypted";
const PLAIN: &str = "plain";
const PASSWORD: &str = "password_of_a_role";

const WAYS_IN: &str = "hostnossl all encrypted all reject
hostssl all plain all reject
host all all all scram-sha-256
";

/// A server with TLS, and the authority that signed its certificate for `localhost`.
struct Encrypting {
    cluster: Cluster,
    authority: NamedTempFile,
    private: CertifiedIssuer<'static, KeyPair>,
}

impl Encrypting {
    async fn start() -> anyhow::Result<Self> {
        let cluster = Cluster::start(Options {
            services: Vec::new(),
            ..Options::default().with_own_servers()
        })
        .await?;
        for role in [ENCRYPTED, PLAIN] {
            let made = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
            sqlx::query(AssertSqlSafe(made))
                .execute(cluster.write_model())
                .await?;
        }
        let mut private = CertificateParams::new(Vec::new())?;
        private.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let private = CertifiedIssuer::self_signed(private, KeyPair::generate()?)?;
        let mut authority = NamedTempFile::new()?;
        authority.write_all(private.pem().as_bytes())?;
        let server = Self {
            cluster,
            authority,
            private,
        };
        server.place("pg_hba.conf", WAYS_IN).await?;
        Ok(server)
    }

    /// Makes the server use this certificate, which a client may not be able to parse.
    async fn show_certificate(&self, readable: bool) -> anyhow::Result<()> {
        let mut certificate = CertificateParams::new(["localhost".to_owned()])?;
        if !readable {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            extension.set_criticality(true);
            certificate.custom_extensions.push(extension);
        }
        let key = KeyPair::generate()?;
        self.place("server.crt", &certificate.signed_by(&key, &self.private)?.pem())
            .await?;
        self.place("server.key", &key.serialize_pem()).await?;
        for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(self.cluster.write_model()).await?;
        }
        wait_until("it speaks TLS", LIMIT, async || {
            let on: String = sqlx::query_scalar("SELECT current_setting('ssl')")
                .fetch_one(self.cluster.write_model())
                .await?;
            Ok(on == "on")
        })
        .await
    }

    /// Writes a file that only the server may read.
    async fn place(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let write = format!(
            "COPY (SELECT regexp_split_to_table('{}', '\n')) TO PROGRAM 'umask 077; cat >{name}'",
            content.trim_end()
        );
        sqlx::raw_sql(AssertSqlSafe(write))
            .execute(self.cluster.write_model())
            .await?;
        Ok(())
    }

    /// The environment of both programs. Each of libpq's own variables in it would break every connection.
    fn told(&self, service: Service, way: Way<'_>) -> anyhow::Result<Vec<(String, String)>> {
        let mut variables: Vec<_> = self.cluster.environment(service)?.into_iter().collect();
        let authority = self.authority.path().display().to_string();
        let opposite = if way.mode == "disable" {
            "require"
        } else {
            "disable"
        };
        for (name, value) in [
            ("WRITE_MODEL_DB_HOST", way.host),
            ("WRITE_MODEL_DB_USER", way.user),
            ("WRITE_MODEL_DB_PWD", PASSWORD),
            ("WRITE_MODEL_DB_SSLMODE", way.mode),
            ("WRITE_MODEL_DB_CA_FILE", if way.trusts { &authority } else { "" }),
            ("PGHOST", "192.0.2.1"),
            ("PGHOSTADDR", "192.0.2.1"),
            ("PGPORT", "1"),
            ("PGUSER", "nobody"),
            ("PGPASSWORD", "wrong"),
            ("PGDATABASE", "nowhere"),
            ("PGSSLMODE", opposite),
            ("PGSSLROOTCERT", "/nowhere"),
            ("PGSSLCERT", "/nowhere"),
            ("PGSSLKEY", "/nowhere"),
            ("PGOPTIONS", "-c nonsense=1"),
            ("PGAPPNAME", "another"),
        ] {
            variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(variables)
    }

    /// Whether the service reads the write model.
    fn serves(&self, way: Way<'_>) -> anyhow::Result<bool> {
        let mut command = self
            .cluster
            .admin_command(Service::CreateBuyOrder, &["checksums"])?;
        let told = self.told(Service::CreateBuyOrder, way)?;
        Ok(command.envs(told).output()?.status.success())
    }

    /// Whether `migration` connects. Otherwise it keeps trying.
    fn migrates(&self, way: Way<'_>) -> anyhow::Result<bool> {
        let mut command = self.cluster.admin_command(Service::Migration, &["--once"])?;
        let told = self.told(Service::Migration, way)?;
        let mut migration = command.envs(told).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(migration.stderr.take().context("no standard error")?).lines();
        let mut connected = None;
        for line in lines {
            let event: Value = serde_json::from_str(&line?).unwrap_or_default();
            if event["database"] == "write_model" {
                connected = Some(event["event"] == "connected_to_database");
                break;
            }
        }
        migration.kill()?;
        migration.wait()?;
        connected.context("it did not try")
    }
}

/// How a program connects, and whether it has the certificate of the authority.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    host: &'a str,
    user: &'a str,
    mode: &'a str,
    trusts: bool,
}

#[tokio::test]
async fn a_connection_to_the_write_model_is_encrypted_as_its_ssl_mode_says_by_service_and_migration()
-> anyhow::Result<()> {
    let server = Encrypting::start().await?;
    let check = |host, user, mode, trusts, connects| {
        let way = Way {
            host,
            user,
            mode,
            trusts,
        };
        assert_eq!(server.serves(way)?, connects, "the service: {way:?}");
        assert_eq!(server.migrates(way)?, connects, "migration: {way:?}");
        anyhow::Ok(())
    };
    server.show_certificate(true).await?;
    for (host, user, mode, trusts, connects) in [
        ("localhost", ENCRYPTED, "disable", false, false),
        ("localhost", ENCRYPTED, "prefer", false, true),
        ("localhost", ENCRYPTED, "require", false, true),
        ("localhost", ENCRYPTED, "verify-full", true, true),
        ("localhost", ENCRYPTED, "verify-full", false, false),
        ("127.0.0.1", ENCRYPTED, "verify-full", true, false),
        ("localhost", PLAIN, "disable", false, true),
        ("localhost", PLAIN, "prefer", false, true),
        ("localhost", PLAIN, "require", false, false),
    ] {
        check(host, user, mode, trusts, connects)?;
    }
    server.show_certificate(false).await?;
    for (user, mode, connects) in [
        (ENCRYPTED, "require", false),
        (ENCRYPTED, "prefer", false),
        (PLAIN, "prefer", true),
    ] {
        check("localhost", user, mode, false, connects)?;
    }
    Ok(())
}
