//! What images say of themselves: OCI's labels, and the list of what is compiled into the binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::project::{Project, docker};

const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");

/// The image in which the others are built.
const BASE: &str = "pydist/base";

/// Names and versions.
type Packages = BTreeSet<(String, String)>;

pub(crate) async fn images_say_what_they_are_and_what_is_compiled_in(
    project: &Project,
) -> anyhow::Result<()> {
    let locked = locked_packages()?;
    for image in &project.own_images()? {
        check_labels(image).with_context(|| image.clone())?;
        let packages = check_packages(image, &locked).with_context(|| image.clone())?;
        eprintln!("                   {image}: {packages} packages");
    }
    Ok(())
}

/// The binary lists its packages, in versions that are locked, and the document in the image is that list.
fn check_packages(image: &str, locked: &Packages) -> anyhow::Result<usize> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    copy_files(image, folder)?;
    let of_binary: Value = serde_json::from_str(&list_of_binary(folder)?)?;
    let document: Value = serde_json::from_slice(&fs::read(folder.join("sbom.cdx.json"))?)?;
    ensure!(
        document == of_binary,
        "the document is not the list of the binary"
    );
    let compiled = packages(&document)?;
    for name in ["tokio", "axum", "serde_json", "common"] {
        ensure!(
            compiled.iter().any(|(known, _)| known == name),
            "{name} is not listed"
        );
    }
    let not_locked: Vec<_> = compiled.difference(locked).collect();
    ensure!(not_locked.is_empty(), "Cargo.lock does not know {not_locked:?}");
    Ok(compiled.len())
}

fn check_labels(image: &str) -> anyhow::Result<()> {
    let inspected: Value = serde_json::from_str(&docker(&["image", "inspect", image])?)?;
    let label = |name: &str| {
        let value = &inspected[0]["Config"]["Labels"][format!("org.opencontainers.image.{name}")];
        let value = value.as_str().filter(|value| !value.is_empty());
        value.with_context(|| format!("it has no label {name}"))
    };
    ensure!(label("title")? == image && label("licenses")? == "MIT");
    ensure!(label("version")? == env!("CARGO_PKG_VERSION"));
    label("description")?;
    OffsetDateTime::parse(label("created")?, &Rfc3339)?;
    let revision = label("revision")?;
    let revision = revision.strip_suffix("-dirty").unwrap_or(revision);
    let is_commit = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_commit, "{revision} is no commit");
    Ok(())
}

/// Copies the files of an image into a folder. The container is never started.
fn copy_files(image: &str, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.to_str().context("path")?;
    let container = docker(&["create", image])?;
    let container = container.trim();
    let copied =
        ["service", "sbom.cdx.json"].map(|file| docker(&["cp", &format!("{container}:/{file}"), folder]));
    docker(&["rm", container])?;
    for copy in copied {
        copy?;
    }
    Ok(())
}

/// What the binary in a folder says, read by the tool of the base image.
fn list_of_binary(folder: &Path) -> anyhow::Result<String> {
    let volume = format!("{}:/image:ro,z", folder.display());
    docker(&[
        "run",
        "--rm",
        "--network=none",
        "--volume",
        &volume,
        BASE,
        "auditable2cdx",
        "/image/service",
    ])
}

fn packages(document: &Value) -> anyhow::Result<Packages> {
    ensure!(document["bomFormat"] == "CycloneDX", "it is no CycloneDX");
    let components = document["components"].as_array().context("no components")?;
    let all = components.iter().chain([&document["metadata"]["component"]]);
    all.map(|component| {
        let text = |name| {
            let text = component[name].as_str().map(str::to_owned);
            text.context("no name or version")
        };
        Ok((text("name")?, text("version")?))
    })
    .collect()
}

fn locked_packages() -> anyhow::Result<Packages> {
    let lock = fs::read_to_string(LOCK)?;
    let value = |line: &str| Some(line.split('"').nth(1)?.to_owned());
    let packages = lock.split("[[package]]\n").skip(1);
    packages
        .map(|package| {
            let mut lines = package.lines().map(value);
            lines
                .next()
                .flatten()
                .zip(lines.next().flatten())
                .context("a package without name and version")
        })
        .collect()
}
