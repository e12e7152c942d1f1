//! `scripts/new_service.sh`, run in copies of this tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, SERVERS_VARIABLE};
use serde_json::Value;
use tempfile::TempDir;

/// A new service, and what it is made like.
type New = (&'static str, Option<&'static str>);

/// One like each service; these are built and tested.
const BUILT: [New; 5] = [
    ("made_by_default", None),
    ("made_like_btc_price", Some("btc_price")),
    ("made_like_create_buy_order", Some("create_buy_order")),
    ("made_like_migration", Some("migration")),
    ("made_like_read_model_sync", Some("read_model_sync")),
];

/// One made like a new one, of the same parts.
const MADE: [New; 2] = [
    ("made_like_create_buy_order", Some("create_buy_order")),
    ("made_like_a_new_one", Some("made_like_create_buy_order")),
];

#[tokio::test]
async fn new_services_build_without_warnings_and_their_tests_pass() -> anyhow::Result<()> {
    let tree = Tree::copy()?;
    tree.make(&BUILT)?;
    let tests = tree.build_tests(&BUILT)?;
    // One set of servers for all of them. Their databases and virtual hosts are named anew by each test.
    let servers = Cluster::start(Options::servers_only()).await?;
    let shared = serde_json::to_string(servers.addresses())?;
    for (name, _) in BUILT {
        let executable = tests.get(name).with_context(|| format!("{name} has no tests"))?;
        let ran = Command::new(executable).env(SERVERS_VARIABLE, &shared).output()?;
        success(&format!("the tests of {name}"), &ran)?;
        let report = String::from_utf8(ran.stdout)?;
        ensure!(report.contains("test result: ok. 4 passed"), "{name}: {report}");
    }
    Ok(())
}

#[test]
fn a_new_service_can_be_followed_too() -> anyhow::Result<()> {
    Tree::copy()?.make(&MADE)
}

#[test]
fn what_cannot_be_made_is_refused_in_a_sentence_and_changes_nothing() -> anyhow::Result<()> {
    let tree = Tree::copy()?;
    let before = tree.contents()?;
    for (arguments, reason) in [
        (vec!["With-Dashes"], "not snake_case"),
        (vec!["../elsewhere"], "not snake_case"),
        (vec!["match"], "meaning of its own"),
        (vec!["docs"], "meaning of its own"),
        (vec!["btc_price"], "is there already"),
        (vec!["price_simulator"], "is there already"),
        (vec!["queue"], "has a service 'queue' already"),
        (vec!["serde_json"], "is the name of a crate"),
        (vec!["write_model_db"], ".env has WRITE_MODEL_DB_HOST"),
        (vec!["new_one", "another"], "one name at a time"),
        (vec!["new_one", "--like"], "--like needs"),
        (vec!["new_one", "--like", "log"], "no service 'log' to follow"),
        (vec!["new_one", "--as", "log"], "unknown option --as"),
    ] {
        let refused = tree.new_service(&arguments)?;
        let complaint = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.contains(reason), "{arguments:?}: {complaint}");
    }
    assert_eq!(tree.contents()?, before);
    Ok(())
}

#[test]
fn a_failure_midway_leaves_the_tree_as_it_was() -> anyhow::Result<()> {
    let tree = Tree::copy()?;
    let before = tree.contents()?;
    let broken = TempDir::new()?;
    for tool in ["rustfmt", "cargo"] {
        let path = broken.path().join(tool);
        fs::write(&path, "#!/bin/sh\nexit 7\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let others = std::env::var_os("PATH").unwrap_or_default();
        let folders = [broken.path().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&others));
        let failed = Command::new(tree.root().join("scripts/new_service.sh"))
            .arg("new_one")
            .env("PATH", std::env::join_paths(folders)?)
            .output()?;
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert_eq!(tree.contents()?, before, "without {tool}");
        fs::remove_file(path)?;
    }
    success("new_service.sh", &tree.new_service(&["new_one"])?)
}

fn success(what: &str, output: &Output) -> anyhow::Result<()> {
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A copy of this tree: what git knows of, and what is new and not ignored.
struct Tree(TempDir);

impl Tree {
    fn copy() -> anyhow::Result<Self> {
        let source = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&source)
            .output()?;
        success("git ls-files", &listed)?;
        let tree = Self(TempDir::new()?);
        let mut folders = Vec::new();
        for path in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (source.join(path), tree.root().join(path));
            // A file that was removed and not yet committed is still listed.
            let Ok(metadata) = fs::symlink_metadata(&from) else {
                continue;
            };
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            if metadata.is_symlink() {
                symlink(fs::read_link(&from)?, &to)?;
            } else {
                fs::copy(&from, &to)?;
                fs::File::options()
                    .write(true)
                    .open(&to)?
                    .set_modified(metadata.modified()?)?;
            }
            folders.extend(Path::new(path).ancestors().skip(1).map(Path::to_owned));
        }
        // As old as the originals: then cargo takes what the build of this very test has compiled.
        folders.sort();
        folders.dedup();
        for folder in folders {
            let modified = fs::metadata(source.join(&folder))?.modified()?;
            fs::File::open(tree.root().join(&folder))?.set_modified(modified)?;
        }
        Ok(tree)
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn new_service(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let script = self.root().join("scripts/new_service.sh");
        Ok(Command::new(script).args(arguments).output()?)
    }

    /// Makes them; their sources must be formatted, and Compose must take its files.
    fn make(&self, new: &[New]) -> anyhow::Result<()> {
        for (name, model) in new {
            let mut arguments = vec![*name];
            arguments.extend(model.iter().flat_map(|model| ["--like", model]));
            success("new_service.sh", &self.new_service(&arguments)?)?;
        }
        let packages = new.iter().map(|(name, _)| format!("--package={name}"));
        let formatted = self.cargo(["fmt", "--check"]).args(packages).output()?;
        success("cargo fmt --check", &formatted)?;
        self.check_compose(new)
    }

    fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(self.root()).args(arguments);
        command
    }

    /// Builds the tests of these services, with the artifacts of the build of this test; by service, the executable.
    fn build_tests(&self, new: &[New]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let running = std::env::current_exe()?;
        let target = running.ancestors().nth(3).context("not in target/release/deps")?;
        // The whole workspace: with a selection of packages cargo selects other features, and compiles the dependencies again. So the
        // tests get names that tell them from those of all the other services.
        let mut cargo = self.cargo(["test", "--release", "--offline", "--workspace", "--no-run"]);
        cargo.arg("--message-format=json-render-diagnostics");
        for (name, _) in new {
            let tests = self.root().join("crates").join(name).join("tests");
            fs::rename(tests.join("api"), tests.join(name))?;
            cargo.arg(format!("--test={name}"));
        }
        let built = cargo.env("CARGO_TARGET_DIR", target).output()?;
        let told = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "cargo test --no-run failed:\n{told}");
        for (name, _) in new {
            ensure!(!told.contains(&format!("warning: `{name}`")), "{told}");
        }
        let messages = String::from_utf8(built.stdout)?;
        let artifacts = messages.lines().map(serde_json::from_str::<Value>);
        let mut executables = BTreeMap::new();
        for artifact in artifacts {
            let artifact = artifact?;
            let text = |pointer| artifact.pointer(pointer).and_then(Value::as_str);
            if let (Some("test"), Some(name), Some(executable)) =
                (text("/target/kind/0"), text("/target/name"), text("/executable"))
            {
                executables.insert(name.to_owned(), PathBuf::from(executable));
            }
        }
        Ok(executables)
    }

    /// Has Compose read the files, where there is one.
    fn check_compose(&self, new: &[New]) -> anyhow::Result<()> {
        let compose = |arguments: &[&str]| {
            Command::new(self.root().join("scripts/compose.sh"))
                .args(arguments)
                .output()
        };
        if !compose(&["version"])?.status.success() {
            println!("left out: Compose is not here, its files were not read");
            return Ok(());
        }
        let listed = compose(&[
            "-f",
            "docker-compose.yml",
            "-f",
            "docker-compose.simulator.yml",
            "config",
        ])?;
        success("compose config", &listed)?;
        let config = String::from_utf8(listed.stdout)?;
        for (name, _) in new {
            ensure!(
                config.contains(&format!("image: pydist/{name}\n")),
                "{name} has no image"
            );
        }
        Ok(())
    }

    /// Every file and link, with what it holds.
    fn contents(&self) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
        let mut contents = BTreeMap::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            contents.insert(folder.clone(), Vec::new());
            for entry in fs::read_dir(folder)? {
                let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_symlink() {
                    let link = fs::read_link(&path)?;
                    contents.insert(path, link.into_os_string().into_encoded_bytes());
                } else {
                    let bytes = fs::read(&path)?;
                    contents.insert(path, bytes);
                }
            }
        }
        Ok(contents)
    }
}
