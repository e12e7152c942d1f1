//! All changes or none: they are made and checked in a folder of their own before they reach the tree.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::read;

/// A folder with the changed files, under their paths in the tree. It is removed on drop.
#[derive(Debug)]
pub(crate) struct Stage {
    root: PathBuf,
    folder: TempDir,
}

impl Stage {
    /// An empty stage inside `root`: on the same file system, so that files move by renaming.
    pub(crate) fn new(root: &Path) -> anyhow::Result<Self> {
        let root = root.canonicalize()?;
        let folder = tempfile::Builder::new()
            .prefix(".new_service.")
            .tempdir_in(&root)?;
        Ok(Self { root, folder })
    }

    /// Adds a file, or a changed one with the permissions of the original.
    pub(crate) fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let (original, staged) = (self.root.join(path), self.create_parent(path)?);
        if original.exists() {
            fs::copy(original, &staged)?;
        }
        Ok(fs::write(staged, text)?)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&self, path: &str, target: &str) -> anyhow::Result<()> {
        Ok(symlink(target, self.create_parent(path)?)?)
    }

    /// Has Cargo add the new crate to `Cargo.lock`, in a workspace that links to the crates of the tree.
    pub(crate) fn lock(&self, name: &str) -> anyhow::Result<()> {
        let workspace = read(&self.root, "Cargo.toml")?;
        ensure!(
            workspace.lines().any(|line| line == r#"members = ["crates/*"]"#),
            "the workspace of Cargo.toml no longer takes all of crates/* as members."
        );
        self.write("Cargo.toml", &workspace)?;
        self.write("Cargo.lock", &read(&self.root, "Cargo.lock")?)?;
        for entry in fs::read_dir(self.root.join("crates"))? {
            let entry = entry?;
            symlink(
                entry.path(),
                self.folder.path().join("crates").join(entry.file_name()),
            )?;
        }
        // Offline first: the dependencies of the model are usually there.
        let metadata = |more: &[&str]| {
            let mut cargo = self.command("cargo");
            cargo
                .args(["metadata", "--format-version=1"])
                .args(more)
                .stdout(Stdio::null());
            cargo
        };
        let offline = metadata(&["--offline"])
            .output()
            .context("cargo is missing: install Rust, https://rustup.rs")?;
        ensure!(
            offline.status.success() || metadata(&[]).status()?.success(),
            "Cargo does not take crates/{name}: see above. Nothing was changed."
        );
        Ok(())
    }

    /// Formats the new crate.
    pub(crate) fn format(&self, name: &str) -> anyhow::Result<()> {
        let workspace = read(&self.root, "Cargo.toml")?;
        let edition = workspace
            .split_once("\nedition = \"")
            .and_then(|(_, rest)| rest.get(..4));
        let sources =
            ["src/lib.rs", "src/main.rs", "tests/api/main.rs"].map(|path| format!("crates/{name}/{path}"));
        let mut rustfmt = self.command("rustfmt");
        rustfmt
            .args(["--edition", edition.context("the workspace has no edition")?])
            .args(sources);
        let formatted = rustfmt
            .status()
            .context("rustfmt is missing: install Rust, https://rustup.rs")?;
        ensure!(
            formatted.success(),
            "rustfmt refuses the new sources: see above. Nothing was changed."
        );
        Ok(())
    }

    /// Moves files and new folders into the tree. When one cannot be moved, restores the tree.
    pub(crate) fn install(self, paths: &[String]) -> anyhow::Result<()> {
        let mut installed = Vec::new();
        for path in paths {
            let target = self.root.join(path);
            let original = fs::read(&target).ok();
            let moved = fs::rename(self.folder.path().join(path), &target);
            if moved.is_err() {
                for (target, original) in installed {
                    let _ = match original {
                        Some(bytes) => fs::write(target, bytes),
                        None => fs::remove_dir_all(target),
                    };
                }
                return moved.with_context(|| format!("{path} cannot be written"));
            }
            installed.push((target, original));
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path());
        command
    }

    fn create_parent(&self, path: &str) -> anyhow::Result<PathBuf> {
        let staged = self.folder.path().join(path);
        fs::create_dir_all(staged.parent().context("a path without a folder")?)?;
        Ok(staged)
    }
}
