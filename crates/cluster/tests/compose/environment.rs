//! The variables that compose passes to containers.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use cluster::Service;
use serde_json::Value;

use crate::project::{Project, docker};

/// Otherwise a variable of `.env` would have an effect natively, and none in containers.
pub(crate) async fn containers_get_the_variables_that_their_services_read(
    project: &Project,
) -> anyhow::Result<()> {
    for service in Service::ALL {
        let containers = project.containers(Some(service.name()))?;
        let container = containers.first().context("no container")?;
        let image: Value = serde_json::from_str(&docker(&["image", "inspect", container.image()])?)?;
        let of_image = variables(&image[0]["Config"]);
        let passed: BTreeSet<&str> = variables(&container.0["Config"])
            .difference(&of_image)
            .copied()
            .collect();
        let read: BTreeSet<&str> = service
            .variables()
            .filter(|name| !name.ends_with("_PWD_FILE"))
            .collect();
        ensure!(
            passed == read,
            "{}: compose alone passes {:?}, and does not pass {:?}",
            service.name(),
            &passed - &read,
            &read - &passed
        );
    }
    Ok(())
}

/// The names of the variables in a configuration of the engine, without those of a proxy, which the engine may add to every container.
fn variables(config: &Value) -> BTreeSet<&str> {
    let pairs = config["Env"].as_array().map_or(&[][..], Vec::as_slice);
    let names = pairs.iter().filter_map(|pair| pair.as_str()?.split('=').next());
    names
        .filter(|name| !name.to_ascii_uppercase().ends_with("_PROXY"))
        .collect()
}
