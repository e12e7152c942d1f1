//! Configuration from the environment alone (12-factor, III), with every fault named at once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A reader of the environment that collects faults instead of stopping at the first.
///
/// Each getter answers a placeholder where the variable is missing or malformed; [`Env::finish`] then refuses the whole configuration
/// and names every faulty variable. An empty value counts as missing, as docker-compose passes unset variables on as empty.
#[derive(Debug)]
pub struct Env {
    variables: BTreeMap<String, String>,
    faults: Vec<String>,
}

/// Every faulty variable of an environment; its `Display` has a line for each.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the environment does not hold a valid configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigFaults(Vec<String>);

/// A value that never appears in a log: its `Debug` is redacted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl Env {
    /// The environment of this process. Names and values that are not Unicode are left out.
    #[must_use]
    pub fn from_process() -> Self {
        let unicode = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::from_pairs(unicode)
    }

    /// An environment of the given names and values.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            variables,
            faults: Vec::new(),
        }
    }

    /// A value that may be absent.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    /// A required text.
    pub fn string(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| self.missing(name))
    }

    /// A text with a default.
    #[must_use]
    pub fn string_or(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// A required value of a type that is read from text, for example a port.
    pub fn parse<T: FromStr + Default>(&mut self, name: &str) -> T {
        match self.optional(name) {
            Some(text) => self.parsed(name, &text).unwrap_or_default(),
            None => self.missing(name),
        }
    }

    /// A value of a type that is read from text, with a default.
    pub fn parse_or<T: FromStr>(&mut self, name: &str, default: T) -> T {
        match self.optional(name) {
            Some(text) => self.parsed(name, &text).unwrap_or(default),
            None => default,
        }
    }

    /// A duration in seconds, decimals allowed, longer than nothing and at most a day.
    pub fn seconds_or(&mut self, name: &str, default: Duration) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let Some(text) = self.optional(name) else {
            return default;
        };
        let seconds = text
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match seconds {
            Some(duration) if !duration.is_zero() && duration <= DAY => duration,
            _ => {
                self.faults.push(format!(
                    "{name} is malformed: {text:?} is not a number of seconds above 0 and up to 86400"
                ));
                default
            }
        }
    }

    /// A required secret: the value of `NAME`, or the content of the file that `NAME_FILE` names, less a trailing line break.
    pub fn secret(&mut self, name: &str) -> Secret {
        let file_variable = format!("{name}_FILE");
        if let Some(path) = self.optional(&file_variable) {
            return match std::fs::read_to_string(&path) {
                Ok(content) => Secret(content.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => {
                    self.faults.push(format!(
                        "{file_variable} names {path:?}, which cannot be read: {error}"
                    ));
                    Secret::default()
                }
            };
        }
        match self.optional(name) {
            Some(value) => Secret(value),
            None => {
                self.faults
                    .push(format!("{name} (or {file_variable}) is missing"));
                Secret::default()
            }
        }
    }

    /// Notes a fault that a getter cannot see, for example of two values together.
    pub fn fault(&mut self, sentence: String) {
        self.faults.push(sentence);
    }

    /// The configuration, when nothing was missing or malformed.
    ///
    /// # Errors
    /// Every fault that the getters met.
    pub fn finish<C>(self, config: C) -> Result<C, ConfigFaults> {
        if self.faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigFaults(self.faults))
        }
    }

    fn missing<T: Default>(&mut self, name: &str) -> T {
        self.faults.push(format!("{name} is missing"));
        T::default()
    }

    fn parsed<T: FromStr>(&mut self, name: &str, text: &str) -> Option<T> {
        let value = text.parse().ok();
        if value.is_none() {
            let wanted = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
            self.faults
                .push(format!("{name} is malformed: {text:?} is not a {wanted}"));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_faulty_variable_is_named_at_once() {
        let mut env = Env::from_pairs([("A_PORT", "http"), ("B", ""), ("WAIT_S", "-1")]);
        let _: u16 = env.parse("A_PORT");
        env.string("B");
        env.secret("PWD_C");
        env.seconds_or("WAIT_S", Duration::from_secs(1));
        let sentence = env.finish(()).map_err(|faults| faults.to_string());
        assert_eq!(
            sentence,
            Err("the environment does not hold a valid configuration:\n  A_PORT is malformed: \"http\" is not a u16\n  B is missing\n  \
                 PWD_C (or PWD_C_FILE) is missing\n  WAIT_S is malformed: \"-1\" is not a number of seconds above 0 and up to 86400"
                .to_owned())
        );
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_line_break_and_never_shows_in_debug() -> std::io::Result<()> {
        let path = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        std::fs::write(&path, "hush\n")?;
        let mut env = Env::from_pairs([("PWD_FILE", path.to_string_lossy())]);
        let secret = env.secret("PWD");
        std::fs::remove_file(&path)?;
        assert_eq!(secret.expose(), "hush");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(env.finish(()), Ok(()));
        Ok(())
    }

    #[test]
    fn seconds_may_have_decimals() {
        let mut env = Env::from_pairs([("WAIT_S", "0.25")]);
        assert_eq!(
            env.seconds_or("WAIT_S", Duration::from_secs(1)),
            Duration::from_millis(250)
        );
        assert_eq!(env.finish(()), Ok(()));
    }
}
