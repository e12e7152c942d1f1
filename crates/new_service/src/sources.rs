//! The files of the new crate, rendered from `templates/`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior, context};

use crate::model::Model;
use crate::read;

macro_rules! templates {
    ($($path:literal)+) => { [$(($path, include_str!(concat!("../templates/", $path)))),+] };
}

/// By path in the new crate.
const TEMPLATES: [(&str, &str); 7] = templates![
    "Cargo.toml" "src/main.rs" "src/lib.rs" "src/config.rs" "src/app.rs" "src/routes.rs" "tests/api/main.rs"
];

/// What the templates use, whatever the model depends on.
const DEPENDENCIES: [&str; 5] = ["anyhow", "axum", "common", "serde", "utoipa"];

/// Path and text of each file of the crate. The sources are not formatted yet.
pub(crate) fn render(root: &Path, name: &str, model: &Model) -> anyhow::Result<Vec<(&'static str, String)>> {
    let dependencies = dependencies(&read(root, &format!("crates/{}/Cargo.toml", model.name))?);
    let parts = context! { name, dependencies, ..Value::from(Serde(model)) };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()?;
    environment.set_syntax(syntax);
    let mut files = Vec::new();
    for (path, template) in TEMPLATES {
        let text = environment.render_str(template, &parts);
        files.push((
            path,
            text.with_context(|| format!("the template {path} cannot be rendered"))?,
        ));
    }
    Ok(files)
}

/// The model's dependencies and those of the templates, one a line, sorted by name.
fn dependencies(manifest: &str) -> String {
    let lines = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1);
    let models = lines.take_while(|line| !line.starts_with('[')).map(str::to_owned);
    let own = DEPENDENCIES.map(|name| format!("{name}.workspace = true"));
    let by_name: BTreeMap<_, _> = own
        .into_iter()
        .chain(models)
        .filter_map(|line| Some((line.split(['.', ' ', '=']).next()?.to_owned(), line)))
        .filter(|(name, _)| name.starts_with(|first: char| first.is_ascii_alphabetic()))
        .collect();
    by_name.into_values().collect::<Vec<_>>().join("\n")
}
