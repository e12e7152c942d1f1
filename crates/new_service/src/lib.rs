//! Adds a service to the workspace after the pattern of one that exists, its model.
//!
//! In reading order: which names are allowed (`name`), what the model needs (`model`), the new crate, rendered from `templates/`
//! (`sources`), the edits of existing files (`compose`, `dotenv`), and how all changes reach the tree at once (`stage`).

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::model::Model;
use crate::stage::Stage;

mod name;

mod model;

mod sources;

mod compose;
mod dotenv;

mod stage;

/// Adds the service `name`, made like the service `like`, to the workspace in `root`. Returns the changed paths.
///
/// # Errors
/// When the name cannot be used, the model is unknown, or a tool fails. The tree is then as it was before.
pub fn add_service(root: &Path, name: &str, like: &str) -> anyhow::Result<Vec<String>> {
    name::check(root, name)?;
    let model = Model::read(root, like)?;

    let stage = Stage::new(root)?;
    let mut changed = vec![format!("crates/{name}"), format!("docker/services/{name}")];
    for (path, text) in sources::render(root, name, &model)? {
        stage.write(&format!("crates/{name}/{path}"), &text)?;
    }
    stage.link(&format!("docker/services/{name}/Dockerfile"), "../Dockerfile")?;
    for file in compose::files(root)? {
        if let Some(text) = compose::with_copy(&read(root, &file)?, like, name) {
            stage.write(&file, &text)?;
            changed.push(file);
        }
    }
    stage.write(".env", &dotenv::with_address(&read(root, ".env")?, name))?;
    stage.lock(name)?;
    stage.format(name)?;
    changed.extend([".env".to_owned(), "Cargo.lock".to_owned()]);
    stage.install(&changed)?;
    Ok(changed)
}

fn read(root: &Path, path: &str) -> anyhow::Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("{path} cannot be read"))
}
