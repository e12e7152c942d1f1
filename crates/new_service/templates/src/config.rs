//! What the service reads from its environment.

use common::endpoints::{Listen, {{ groups | map(attribute="kind") | unique | join(", ") }}};
use common::env::Env;

/// The configuration of `{{name}}`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens: `SERVICE_…`.
    pub listen: Listen,
    {% for group in groups %}
    /// `{{group.prefix}}_…`.
    pub {{group.field}}: {{group.kind}},
    {% endfor %}
}

impl Config {
    /// Reads the configuration; faults are collected in `env`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            {% for group in groups %}
            {{group.field}}: {{group.kind}}::from_env({{group.arguments}}),
            {% endfor %}
        }
    }
}
