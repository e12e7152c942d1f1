//! Where a node looks for its modules.
//!
//! Erlang looks for each of about 1,100 modules in one folder after the other. With all 70 plugins that the package brings, a start of
//! RabbitMQ 3.10 tries 50,000 files that are not there, which is a quarter of its time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::account::{Account, private_directory};

const ERLANG_LIBRARIES: &str = "/usr/lib/erlang/lib";
/// Those of the plugins `rabbitmq_…` that a node may use. All other folders are libraries.
const PLUGINS: [&str; 5] = [
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_prelaunch",
    "rabbitmq_prometheus",
    "rabbitmq_web_dispatch",
];
/// The applications with the most modules.
const SEARCHED_FIRST: [&str; 5] = ["stdlib", "compiler", "rabbit", "rabbit_common", "ssl"];

/// Where a node looks for its modules.
#[derive(Debug)]
pub(super) struct Modules {
    /// The folder of plugins, unless the package keeps them in an unknown place.
    pub(super) plugins: Option<PathBuf>,
    /// The folders that are searched first.
    pub(super) first: Vec<PathBuf>,
}

impl Modules {
    /// Links the plugins of a start script into `folder`, which may hold the links of an earlier start.
    pub(super) fn link(folder: &Path, script: &Path, account: Option<&Account>) -> anyhow::Result<Self> {
        let packaged = fs::canonicalize(script)?
            .parent()
            .map(|sbin| sbin.join("../plugins"));
        let Some(packaged) = packaged.filter(|packaged| packaged.is_dir()) else {
            return Ok(Self {
                plugins: None,
                first: Vec::new(),
            });
        };
        let packaged = fs::canonicalize(packaged)?;
        let context = || format!("could not link the plugins of RabbitMQ into {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(context)?;
        }
        private_directory(folder, account)?;
        for entry in fs::read_dir(&packaged)? {
            let name = entry?.file_name();
            if is_used(&name.to_string_lossy()) {
                std::os::unix::fs::symlink(packaged.join(&name), folder.join(&name)).with_context(context)?;
            }
        }
        let libraries = [Path::new(ERLANG_LIBRARIES), &packaged];
        let first = SEARCHED_FIRST.iter().flat_map(|name| compiled(name, &libraries));
        Ok(Self {
            plugins: Some(folder.to_owned()),
            first: first.collect(),
        })
    }
}

/// `name` is that of an application and its version, `rabbitmq_management-3.10.8`, or of an archive, `rabbitmq_management-3.10.8.ez`.
fn is_used(name: &str) -> bool {
    !name.starts_with("rabbitmq_") || PLUGINS.contains(&application(name))
}

fn application(name: &str) -> &str {
    name.split_once('-').map_or(name, |(application, _)| application)
}

/// The folder of the modules of an application. A blank in it would end the argument.
fn compiled(name: &str, libraries: &[&Path]) -> Option<PathBuf> {
    let folders = libraries.iter().filter_map(|library| fs::read_dir(library).ok());
    folders
        .flatten()
        .flatten()
        .find(|entry| application(&entry.file_name().to_string_lossy()) == name)
        .map(|entry| entry.path().join("ebin"))
        .filter(|path| path.is_dir() && !path.to_string_lossy().contains(' '))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Under a strict umask, too: nobody else could read what root makes.
    #[test]
    fn the_account_of_the_node_owns_the_folder_and_a_second_start_links_again() {
        let root = tempfile::tempdir().unwrap();
        let (script, folder) = (
            root.path().join("sbin/rabbitmq-server"),
            root.path().join("linked"),
        );
        for package in [
            "sbin",
            "plugins/rabbit-3.10.8/ebin",
            "plugins/rabbitmq_mqtt-3.10.8/ebin",
        ] {
            fs::create_dir_all(root.path().join(package)).unwrap();
        }
        fs::write(&script, "").unwrap();
        let account = Account::for_server("rabbitmq").unwrap();
        for _ in 0..2 {
            let modules = Modules::link(&folder, &script, account.as_ref()).unwrap();
            assert_eq!(modules.plugins.as_ref(), Some(&folder));
            assert!(
                modules
                    .first
                    .iter()
                    .any(|first| first.ends_with("rabbit-3.10.8/ebin")),
                "{modules:?}"
            );
            let linked: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(linked, ["rabbit-3.10.8"]);
            let owner = fs::metadata(&folder).unwrap().uid();
            assert_eq!(owner, account.as_ref().map_or(owner, |account| account.uid));
        }
    }

    #[test]
    fn a_package_with_another_layout_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let script = root.path().join("rabbitmq-server");
        fs::write(&script, "").unwrap();
        let modules = Modules::link(&root.path().join("linked"), &script, None).unwrap();
        assert_eq!((modules.plugins, modules.first), (None, Vec::new()));
    }

    #[test]
    fn plugins_that_nobody_enables_are_left_out() {
        for used in [
            "rabbitmq_management-3.10.8",
            "rabbitmq_prometheus-4.0.5.ez",
            "rabbit-3.10.8",
            "README",
        ] {
            assert!(is_used(used), "{used}");
        }
        for unused in ["rabbitmq_mqtt-3.10.8", "rabbitmq_management_extra-1.0"] {
            assert!(!is_used(unused), "{unused}");
        }
    }
}
