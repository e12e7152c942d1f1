//! The program, run in copies of this tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, SERVERS_VARIABLE};
use tempfile::TempDir;

/// A new service, and what it is made like.
type New = (&'static str, Option<&'static str>);

/// One like each service. These are built and tested.
const BUILT: [New; 5] = [
    ("made_by_default", None),
    ("made_like_btc_price", Some("btc_price")),
    ("made_like_create_buy_order", Some("create_buy_order")),
    ("made_like_migration", Some("migration")),
    ("made_like_read_model_sync", Some("read_model_sync")),
];

/// A service whose model was itself made like another.
const MADE: [New; 2] = [
    ("made_like_create_buy_order", Some("create_buy_order")),
    ("made_like_a_new_one", Some("made_like_create_buy_order")),
];

#[tokio::test]
async fn new_services_build_without_warnings_and_their_tests_pass() -> anyhow::Result<()> {
    let tree = Tree::copy()?;
    tree.make(&BUILT)?;
    // --test selects from the tests of all packages: these need names of their own.
    for (name, _) in BUILT {
        let tests = tree.root().join("crates").join(name).join("tests");
        fs::rename(tests.join("api"), tests.join(name))?;
    }
    let built = tree.test(&["--no-run"])?.output()?;
    success("cargo test --no-run", &built)?;
    let warnings = String::from_utf8_lossy(&built.stderr);
    assert!(!warnings.contains("warning: `made_"), "{warnings}");
    // All share one set of servers: each test has databases and a virtual host of its own.
    let servers = Cluster::start(Options::servers_only()).await?;
    let shared = serde_json::to_string(servers.addresses())?;
    let tested = tree.test(&[])?.env(SERVERS_VARIABLE, shared).output()?;
    success("the tests of the new services", &tested)?;
    let report = String::from_utf8(tested.stdout)?;
    assert_eq!(
        report.matches("test result: ok. 4 passed").count(),
        BUILT.len(),
        "{report}"
    );
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
    for (arguments, code, reason) in [
        (vec!["With-Dashes"], 1, "not snake_case"),
        (vec!["../elsewhere"], 1, "not snake_case"),
        (vec!["match"], 1, "meaning of its own"),
        (vec!["docs"], 1, "meaning of its own"),
        (vec!["btc_price"], 1, "is there already"),
        (vec!["price_simulator"], 1, "is there already"),
        (vec!["queue"], 1, "has a service 'queue' already"),
        (vec!["serde_json"], 1, "is the name of a crate"),
        (vec!["write_model_db"], 1, ".env has WRITE_MODEL_DB_HOST"),
        (vec!["new_one", "another"], 2, "unexpected argument 'another'"),
        (vec!["new_one", "--like"], 2, "a value is required for '--like"),
        (vec!["new_one", "--like", "log"], 1, "no service 'log' to follow"),
        (vec!["new_one", "--as", "log"], 2, "unexpected argument '--as'"),
    ] {
        let refused = tree.new_service(&arguments).output()?;
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(reason), "{arguments:?}: {stderr}");
    }
    assert!(tree.contents()? == before, "the tree has changed");
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
        let folders = std::iter::once(broken.path().to_owned()).chain(std::env::split_paths(&others));
        let failed = tree
            .new_service(&["new_one"])
            .env("PATH", std::env::join_paths(folders)?)
            .output()?;
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(tree.contents()? == before, "the tree has changed, without {tool}");
        fs::remove_file(path)?;
    }
    success("new_service", &tree.new_service(&["new_one"]).output()?)
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
        let paths = String::from_utf8(listed.stdout)?;
        let tree = Self(TempDir::new()?);
        // Times too: then cargo does not compile again what the build of this test has compiled.
        let copied = Command::new("cp")
            .args([
                "--parents",
                "--preserve",
                "--no-dereference",
                "--target-directory",
            ])
            .arg(tree.root())
            // A file that was removed and not yet committed is still listed.
            .args(
                paths
                    .split_terminator('\0')
                    .filter(|path| fs::symlink_metadata(source.join(path)).is_ok()),
            )
            .current_dir(&source)
            .output()?;
        success("cp", &copied)?;
        Ok(tree)
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// The program, run in this tree.
    fn new_service(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_new_service"));
        program.current_dir(self.root()).args(arguments);
        program
    }

    /// Makes them. Their sources must be formatted, and the compose files must be valid.
    fn make(&self, new: &[New]) -> anyhow::Result<()> {
        for (name, model) in new {
            let mut arguments = vec![*name];
            arguments.extend(model.iter().flat_map(|model| ["--like", model]));
            success("new_service", &self.new_service(&arguments).output()?)?;
        }
        let packages = new.iter().map(|(name, _)| format!("--package={name}"));
        let formatted = self.cargo(["fmt", "--check"]).args(packages).output()?;
        success("cargo fmt --check", &formatted)?;
        self.check_compose(new)
    }

    fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(self.root()).args(arguments);
        // What cargo tells this test of its own package. The build script of ring would take it for a change: ring, and all that needs it, would
        // be compiled again, here and by the next cargo that people call.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "OUT_DIR" || text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// The tests of the built services, compiled in the target folder of this test.
    fn test(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let running = std::env::current_exe()?;
        let target = running.ancestors().nth(3).context("not in target/release/deps")?;
        // The whole workspace: for a selection of packages cargo selects other features and compiles the dependencies again.
        let mut cargo = self.cargo(["test", "--release", "--offline", "--locked", "--workspace"]);
        cargo.args(BUILT.map(|(name, _)| format!("--test={name}")));
        cargo.args(arguments).env("CARGO_TARGET_DIR", target);
        Ok(cargo)
    }

    /// Has Compose read its files, where it is installed.
    fn check_compose(&self, new: &[New]) -> anyhow::Result<()> {
        let compose = || Command::new(self.root().join("scripts/compose.sh"));
        if !compose().arg("version").output()?.status.success() {
            println!("left out: Compose is not installed, so its files were not checked");
            return Ok(());
        }
        let files =
            ["docker-compose.yml", "docker-compose.simulator.yml"].map(|file| format!("--file={file}"));
        let listed = compose().args(files).arg("config").output()?;
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

    /// Every file, folder and link, with its permissions and what it holds.
    fn contents(&self) -> anyhow::Result<Vec<u8>> {
        let archive = Command::new("tar")
            .args(["--create", "--sort=name", "--mtime=@0", "--directory"])
            .arg(self.root())
            .arg(".")
            .output()?;
        success("tar", &archive)?;
        Ok(archive.stdout)
    }
}
