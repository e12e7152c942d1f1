//! The contents of images and the privileges of containers.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::black_box::System;
use crate::project::{Project, docker};

const LARGEST_IMAGE_BYTES: u64 = 20_000_000;

pub(crate) async fn images_are_small_and_hold_nothing_but_the_binary_and_its_list(
    project: &Project,
) -> anyhow::Result<()> {
    for image in &project.own_images()? {
        let inspected: Value = serde_json::from_str(&docker(&["image", "inspect", image])?)?;
        let bytes = inspected[0]["Size"].as_u64().context("no size")?;
        ensure!(bytes < LARGEST_IMAGE_BYTES, "{image} has {bytes} bytes");
        let mut files = files_of(image)?;
        files.sort();
        ensure!(files == ["sbom.cdx.json", "service"], "{image} holds {files:?}");
        eprintln!(
            "                   {image}: {}.{} MB",
            bytes / 1_000_000,
            bytes / 100_000 % 10
        );
    }
    Ok(())
}

/// The files in all layers of an image. The file system of a container would also show the files that the engine adds.
fn files_of(image: &str) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("image.tar");
    docker(&[
        "image",
        "save",
        "--output",
        archive.to_str().context("path")?,
        image,
    ])?;
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar")
            .current_dir(folder.path())
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "tar {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    tar(&["-xf", "image.tar"])?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json"))?)?;
    let mut files = Vec::new();
    for layer in manifest[0]["Layers"].as_array().context("no layers")? {
        let names = tar(&["-tf", layer.as_str().context("no name")?])?;
        files.extend(
            names
                .lines()
                .filter(|name| !name.ends_with('/'))
                .map(str::to_owned),
        );
    }
    Ok(files)
}

pub(crate) async fn containers_have_no_rights(project: &Project) -> anyhow::Result<()> {
    for container in project.containers(None)? {
        let (name, host) = (container.name(), &container.0["HostConfig"]);
        ensure!(
            host["CapDrop"] == serde_json::json!(["ALL"]),
            "{name} drops only {}",
            host["CapDrop"]
        );
        ensure!(
            host["CapAdd"].as_array().is_none_or(Vec::is_empty),
            "{name} adds {}",
            host["CapAdd"]
        );
        ensure!(host["Privileged"] == false, "{name} is privileged");
        ensure!(
            host["Memory"].as_u64().is_some_and(|bytes| bytes > 0),
            "{name} has no memory limit"
        );
        ensure!(
            host["SecurityOpt"].to_string().contains("no-new-privileges"),
            "{name} may gain privileges"
        );
        if container.is_ours() {
            let user = container.0["Config"]["User"].as_str().unwrap_or_default();
            let uid: u32 = user
                .split(':')
                .next()
                .unwrap_or_default()
                .parse()
                .with_context(|| format!("{name}: {user}"))?;
            ensure!(uid != 0, "{name} runs as root");
            ensure!(
                host["ReadonlyRootfs"] == true,
                "{name} may write to its file system"
            );
        }
    }
    Ok(())
}

pub(crate) async fn the_entry_hands_out_nothing_for_operators(system: &System) -> anyhow::Result<()> {
    for url in [&system.create_buy_order, &system.fetch_buy_orders] {
        for path in [
            "/metrics",
            "/livez",
            "/readyz",
            "/metrics?a=1",
            "/%6detrics",
            "//metrics",
            "/metrics/",
        ] {
            let response = system.http.get(format!("{url}{path}")).send().await?;
            let answer = (response.status().as_u16(), response.json::<Value>().await?);
            ensure!(
                answer == (404, serde_json::json!({"detail": "Not Found"})),
                "{path}: {answer:?}"
            );
        }
    }
    Ok(())
}
