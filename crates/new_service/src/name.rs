//! Which names a new service may have.

use std::path::Path;

use anyhow::ensure;

use crate::{compose, dotenv, read};

const MAX_LENGTH: usize = 40;

/// Keywords and names that Rust or Cargo reserve; modules of the new crate; routes and prefixes that every service has.
const RESERVED: &str = "abstract alloc as async await become box break build const continue core crate deps do dyn else enum
    examples extern false final fn for gen if impl in incremental let loop macro match mod move mut override priv proc_macro pub
    ref return self static std struct super test trait true try type typeof unsafe unsized use virtual where while yield
    api app config routes docs healthcheck livez metrics readyz service";

/// Refuses a name that is malformed, reserved or taken.
pub(crate) fn check(root: &Path, name: &str) -> anyhow::Result<()> {
    ensure!(
        is_snake_case(name),
        "'{name}' is not snake_case: lower-case words and digits, joined by single underscores."
    );
    ensure!(
        name.len() <= MAX_LENGTH,
        "'{name}' is longer than {MAX_LENGTH} characters."
    );
    ensure!(
        !RESERVED.split_whitespace().any(|word| word == name),
        "'{name}' has a meaning of its own in Rust, in Cargo or in every service."
    );
    for folder in [format!("crates/{name}"), format!("docker/services/{name}")] {
        ensure!(!root.join(&folder).exists(), "{folder} is there already.");
    }
    ensure!(
        !compose::has_service(&read(root, "docker-compose.yml")?, name),
        "docker-compose.yml has a service '{name}' already."
    );
    let spellings = [name, &name.replace('_', "-")].map(|name| format!("name = \"{name}\""));
    ensure!(
        !read(root, "Cargo.lock")?
            .lines()
            .any(|line| spellings.iter().any(|name| name == line)),
        "'{name}' is the name of a crate that the workspace uses."
    );
    let [host, port] = dotenv::address(name);
    let taken = |line: &str| line.starts_with(&format!("{host}=")) || line.starts_with(&format!("{port}="));
    ensure!(
        !read(root, ".env")?.lines().any(taken),
        ".env has {host} or {port} already."
    );
    Ok(())
}

fn is_snake_case(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('_').all(is_word)
}
