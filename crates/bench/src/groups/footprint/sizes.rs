//! The size of the services on disk: release binaries, and images if there are any.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use cluster::Service;

use crate::bench::Bench;
use crate::command;
use crate::figures::megabytes;

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let mut sum = 0;
    for service in Service::ALL {
        let binary = binary(service)?;
        let bytes = fs::metadata(&binary)
            .with_context(|| format!("could not look at {}", binary.display()))?
            .len();
        sum += bytes;
        let name = format!("binary of {}", service.name());
        bench.figures.add(name, megabytes(bytes), "MB");
    }
    bench
        .figures
        .add("binaries of all services", megabytes(sum), "MB");

    let engine_was_there = engine_answers().await;
    // Building images takes minutes and does not show whether the services work.
    let built = if bench.quick { Ok(()) } else { build_images().await };
    if let Err(error) = built {
        // Not measured, because the images of an older version may be there. The reason is long, and about this machine.
        eprintln!("{error:#}");
        bench.note("the images could not be built: their sizes are left out");
    } else if engine_answers().await {
        images(bench).await?;
    } else {
        bench.note("no Docker engine answers here: the sizes of images are left out");
    }
    if !engine_was_there {
        // Does nothing if none was started.
        script("scripts/ensure_docker.sh", &["stop"]).await?;
    }
    Ok(())
}

async fn images(bench: &mut Bench) -> anyhow::Result<()> {
    for service in Service::ALL {
        let image = format!("pydist/{}", service.name());
        match docker(&["image", "inspect", "--format", "{{.Size}}", &image]).await {
            Ok(bytes) => {
                let bytes = bytes.trim().parse().context("Docker reported no size")?;
                bench
                    .figures
                    .add(format!("image {image}"), megabytes(bytes), "MB");
            }
            Err(_) => bench.note(format!(
                "there is no image {image}, which ./build_run_images.sh builds: its size is left out"
            )),
        }
    }
    Ok(())
}

/// The release binary beside this program.
fn binary(service: Service) -> anyhow::Result<PathBuf> {
    let running = std::env::current_exe().context("could not tell where this program is")?;
    Ok(running.with_file_name(service.name()))
}

/// Builds the images that are not up to date.
async fn build_images() -> anyhow::Result<()> {
    script("scripts/ensure_docker.sh", &[]).await?;
    script("./build_run_images.sh", &[]).await
}

/// Runs a script of the repository, which is the current folder.
async fn script(path: &str, arguments: &[&str]) -> anyhow::Result<()> {
    command::output(path, arguments, &[]).await.map(drop)
}

async fn engine_answers() -> bool {
    docker(&["version", "--format", "{{.Server.Version}}"])
        .await
        .is_ok()
}

async fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    command::output("docker", arguments, &[]).await
}
