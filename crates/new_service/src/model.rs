//! What the new service takes over from its model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{compose, read};

/// What the templates need to know of the model. Its `Config` and `app.rs` tell most of it.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    /// Its name, as of its crate.
    #[serde(rename = "model")]
    pub(crate) name: String,
    /// Its variant of `cluster::Service`; for a model that was generated, the variant of the model's own model.
    variant: String,
    /// What its `Config` reads besides `SERVICE_…`.
    groups: Vec<Group>,
    /// The groups that the handlers get.
    shared: Vec<Group>,
    /// The fields of the databases.
    databases: Vec<String>,
    waits_for_migration: bool,
    /// A service that consumes waits for the broker, and for what `migration` declares there. One that publishes from an outbox does not.
    waits_for_broker: bool,
}

/// A group of variables, such as `READ_MODEL_DB_…`.
#[derive(Debug, Clone, Serialize)]
struct Group {
    /// Its type in `common::endpoints`.
    kind: &'static str,
    /// What the variables' names begin with: `READ_MODEL_DB`.
    prefix: String,
    /// The field of `Config`: `read_model`.
    field: String,
    /// The arguments of `from_env`.
    arguments: String,
    /// How the names of the required variables end.
    required: &'static [&'static str],
}

impl Model {
    /// Reads the sources of the service `name`.
    pub(crate) fn read(root: &Path, name: &str) -> anyhow::Result<Self> {
        let known = services(root)?;
        ensure!(
            known.contains(name),
            "there is no service '{name}' to follow; there are: {}.",
            known.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
        );
        ensure!(
            compose::has_service(&read(root, "docker-compose.yml")?, name),
            "docker-compose.yml has no service '{name}'."
        );
        let variant = variant(root, name)?.with_context(|| {
            format!("crates/cluster does not know '{name}', and so cannot give the tests its environment.")
        })?;
        let config = read(root, &format!("crates/{name}/src/config.rs"))?;
        let app = read(root, &format!("crates/{name}/src/app.rs"))?;
        let groups: Vec<Group> = config.lines().filter_map(group).collect();
        let shared = groups.iter().filter(|group| group.field != "migration");
        let databases = groups.iter().filter(|group| group.kind == "Database");
        let waits_for_migration = groups.iter().any(|group| group.field == "migration");
        Ok(Self {
            name: name.to_owned(),
            variant,
            shared: shared.cloned().collect(),
            databases: databases.map(|group| group.field.clone()).collect(),
            waits_for_migration,
            waits_for_broker: waits_for_migration && app.contains("broker::"),
            groups,
        })
    }
}

/// The services that have an image and a crate of their own.
fn services(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut services = BTreeSet::new();
    for folder in fs::read_dir(root.join("docker/services"))? {
        let name = folder?.file_name().to_string_lossy().into_owned();
        if root.join(format!("crates/{name}/src/config.rs")).is_file() {
            services.insert(name);
        }
    }
    Ok(services)
}

/// The group that a line of `Config::from_env` reads.
fn group(line: &str) -> Option<Group> {
    let (kind, required): (_, &[_]) = if line.contains("Database::from_env(") {
        ("Database", &["HOST", "PORT", "NAME", "USER", "PWD"])
    } else if line.contains("Queue::from_env(") || line.contains("Queue::optional(") {
        ("Queue", &["HOST", "PORT", "USER", "PWD"])
    } else if line.contains("Peer::from_env(") {
        ("Peer", &["HOST", "PORT"])
    } else {
        return None;
    };
    let (_, call) = line
        .split_once("::from_env(")
        .or_else(|| line.split_once("::optional("))?;
    let (arguments, _) = call.split_once(')')?;
    let prefix = arguments.split('"').nth(1);
    Some(Group {
        kind,
        prefix: prefix.unwrap_or("Q").to_owned(),
        field: prefix.map_or("queue".to_owned(), |prefix| {
            prefix.trim_end_matches("_DB").to_lowercase()
        }),
        arguments: arguments.to_owned(),
        required,
    })
}

fn variant(root: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let between = |text: &str, before: &str, after: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| Some(line.strip_prefix(before)?.strip_suffix(after)?.to_owned()))
    };
    let cluster = read(root, "crates/cluster/src/service.rs")?;
    let tests = fs::read_to_string(root.join(format!("crates/{name}/tests/api/main.rs"))).unwrap_or_default();
    Ok(between(&cluster, "Self::", &format!(" => \"{name}\","))
        .or_else(|| between(&tests, "const MODEL: Service = Service::", ";")))
}

#[cfg(test)]
mod tests {
    use cluster::Service;

    use super::*;

    #[test]
    fn every_group_that_a_service_reads_is_found_in_its_sources() -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for service in Service::OF_ORDERS {
            let model = Model::read(&root, service.name())?;
            let found: BTreeSet<String> = model
                .groups
                .iter()
                .map(|group| format!("{}_HOST", group.prefix))
                .collect();
            let of_every_service = ["SERVICE_HOST", "LOGGING_HOST", "CONSOLE_HOST"];
            let read: BTreeSet<String> = service
                .variables()
                .filter(|name| name.ends_with("_HOST") && !of_every_service.contains(name))
                .map(str::to_owned)
                .collect();
            assert_eq!(found, read, "{}", service.name());
        }
        Ok(())
    }
}
