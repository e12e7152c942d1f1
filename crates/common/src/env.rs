//! Reads the configuration from the environment alone (12-factor, III), and reports all faults at once.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use url::Host;

use crate::deployment::{DEPLOYMENTS, PRODUCTION, is_public};

/// A reader of the environment that collects faults instead of stopping at the first.
///
/// Each getter returns a placeholder if its variable is missing or malformed. [`Env::finish`] then refuses the whole configuration and names
/// every faulty variable. An empty value counts as missing, because docker-compose passes unset variables as empty ones.
pub struct Env {
    variables: BTreeMap<String, String>,
    faults: Vec<String>,
}

/// Every faulty variable of an environment; its `Display` has a line for each.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the environment does not hold a valid configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigFaults(Vec<String>);

/// A value that never appears in a log: its `Debug` is redacted. A secret from a file is read again each time it is used, so that after a
/// rotation of the file the next connection uses the new one.
#[derive(Clone, Default)]
pub struct Secret {
    /// The value that was read last, shared by all clones.
    last: Arc<Mutex<String>>,
    file: Option<SecretFile>,
}

#[derive(Clone)]
struct SecretFile {
    variable: String,
    path: PathBuf,
}

impl Secret {
    /// The secret itself, for the one place that needs it. If its file cannot be read or is empty, this is the value that was read last: the
    /// file may be in the middle of a rotation.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(SecretFile { variable, path }) = &self.file {
            match read_secret(path) {
                Ok(secret) => *last = secret,
                Err(error) => {
                    tracing::warn!(event = "secret_file_not_read", variable, path = %path.display(), %error);
                }
            }
        }
        last.clone()
    }
}

/// The content of a file without one line break at its end (LF or CRLF), which editors and `echo` add. All other characters are part of the
/// secret, also spaces and further line breaks.
fn read_secret(path: &Path) -> io::Result<String> {
    let content = std::fs::read_to_string(path)?;
    let without_line_break = content.strip_suffix("\r\n").or(content.strip_suffix('\n'));
    let secret = without_line_break.unwrap_or(&content);
    if secret.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty"));
    }
    Ok(secret.to_owned())
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Without the values: passwords are among them.
impl fmt::Debug for Env {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Env {
    /// The environment of this process. Names and values that are not Unicode are ignored.
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
        self.require(name);
        self.optional(name).unwrap_or_default()
    }

    /// A text with a default.
    #[must_use]
    pub fn string_or(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// A required port.
    pub fn port(&mut self, name: &str) -> u16 {
        self.require(name);
        self.port_or(name, 0)
    }

    /// A port with a default.
    pub fn port_or(&mut self, name: &str, default: u16) -> u16 {
        let Some(text) = self.optional(name) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            self.malformed(name, &text, "is not a port, which is a number from 0 to 65535");
            default
        })
    }

    /// A value of a type that is read from text, with a default.
    pub fn parse_or<T: FromStr>(&mut self, name: &str, default: T) -> T {
        let Some(text) = self.optional(name) else {
            return default;
        };
        text.parse().unwrap_or_else(|_| {
            let wanted = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
            self.malformed(name, &text, &format!("is not a {wanted}"));
            default
        })
    }

    /// A duration in seconds, with decimals if needed, greater than 0 and at most a day.
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
                self.malformed(name, &text, "is not a number of seconds above 0 and up to 86400");
                default
            }
        }
    }

    /// A required secret: the value of `NAME`, or the content of the file that `NAME_FILE` names, without one line break at its end.
    pub fn secret(&mut self, name: &str) -> Secret {
        let variable = format!("{name}_FILE");
        let path = self.optional(&variable).map(PathBuf::from);
        let secret = match &path {
            Some(path) => read_secret(path).map_err(|error| {
                format!(
                    "{variable} names {}, which cannot be read: {error}",
                    path.display()
                )
            }),
            None => self
                .optional(name)
                .ok_or_else(|| format!("{name} (or {variable}) is missing")),
        };
        let secret = secret.unwrap_or_else(|fault| {
            self.fault(fault);
            String::new()
        });
        if is_public(&secret) {
            self.refuse_in_production(&format!("{name} is a password that everybody can read in .env"));
        }
        Secret {
            last: Arc::new(Mutex::new(secret)),
            file: path.map(|path| SecretFile { variable, path }),
        }
    }

    /// A value that may be absent and is one of these.
    pub(crate) fn one_of(&mut self, name: &str, values: &[&'static str]) -> Option<&'static str> {
        let text = self.optional(name)?;
        let value = values.iter().find(|value| **value == text).copied();
        if value.is_none() {
            let reason = match values {
                [only] => format!("is not {only}"),
                _ => format!("is none of {}", values.join(", ")),
            };
            self.malformed(name, &text, &reason);
        }
        value
    }

    /// A required host: a name, an IPv4 address, or an IPv6 address with or without brackets. The result is in the form that sockets and
    /// drivers accept: names in lower case and in ASCII as in DNS, addresses in their canonical form, of IPv6 without brackets.
    pub fn host(&mut self, name: &str) -> String {
        self.require(name);
        self.optional_host(name).unwrap_or_default()
    }

    /// A host that may be absent.
    pub fn optional_host(&mut self, name: &str) -> Option<String> {
        let text = self.optional(name)?;
        parse_host(&text)
            .map_err(|reason| self.malformed(name, &text, reason))
            .ok()
    }

    /// Adds the fault of a value, where `reason` ends the sentence: `is not …`.
    pub fn malformed(&mut self, name: &str, value: &str, reason: &str) {
        self.fault(format!("{name} is malformed: {value:?} {reason}"));
    }

    /// Reads `DEPLOYMENT`: `development`, the default, or `production`.
    pub(crate) fn deployment(&mut self) {
        self.one_of("DEPLOYMENT", &DEPLOYMENTS);
    }

    /// With `DEPLOYMENT=production` this is a fault, for example `AUTH_MODE is none`.
    pub(crate) fn refuse_in_production(&mut self, what_is_wrong: &str) {
        if self.optional("DEPLOYMENT").as_deref() == Some(PRODUCTION) {
            self.fault(format!("{what_is_wrong}, which DEPLOYMENT=production refuses"));
        }
    }

    /// Adds a fault that no getter can find, for example of two values together.
    pub fn fault(&mut self, sentence: String) {
        self.faults.push(sentence);
    }

    /// Returns the configuration if no variable was missing or malformed.
    ///
    /// # Errors
    /// All faults that were found.
    pub fn finish<C>(self, config: C) -> Result<C, ConfigFaults> {
        if self.faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigFaults(self.faults))
        }
    }

    fn require(&mut self, name: &str) {
        if self.optional(name).is_none() {
            self.fault(format!("{name} is missing"));
        }
    }
}

fn parse_host(text: &str) -> Result<String, &'static str> {
    let inner = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = inner.parse::<Ipv6Addr>() {
        return Ok(address.to_string());
    }
    if inner
        .split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
    {
        return Err("has a zone, which a URL cannot name: use an address that needs none");
    }
    match Host::parse(text) {
        // In a URL `%41` would stand for a character.
        Ok(host) if !text.contains('%') => Ok(host.to_string()),
        _ => Err("is neither a host name nor an IP address"),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    #[test]
    fn every_faulty_variable_is_named_at_once() {
        let mut env = Env::from_pairs([("A_PORT", "http"), ("B", ""), ("WAIT_S", "-1")]);
        env.port("A_PORT");
        env.string("B");
        env.secret("PWD_C");
        env.seconds_or("WAIT_S", Duration::from_secs(1));
        let sentence = env.finish(()).map_err(|faults| faults.to_string());
        assert_eq!(
            sentence,
            Err("the environment does not hold a valid configuration:\n  A_PORT is malformed: \"http\" is not a port, which is a number from 0 to 65535\n  B is missing\n  \
                 PWD_C (or PWD_C_FILE) is missing\n  WAIT_S is malformed: \"-1\" is not a number of seconds above 0 and up to 86400"
                .to_owned())
        );
    }

    fn secret_in_file(content: &[u8]) -> io::Result<(NamedTempFile, Secret, Result<(), ConfigFaults>)> {
        let file = NamedTempFile::new()?;
        std::fs::write(file.path(), content)?;
        let mut env = Env::from_pairs([("PWD_FILE", file.path().to_string_lossy())]);
        let secret = env.secret("PWD");
        Ok((file, secret, env.finish(())))
    }

    #[test]
    fn of_a_secret_file_one_line_break_at_the_end_is_left_out_and_nothing_else() -> io::Result<()> {
        for (content, secret) in [
            ("hush", "hush"),
            ("hush\n", "hush"),
            ("hush\r\n", "hush"),
            ("hush\n\n", "hush\n"),
            ("hush\r", "hush\r"),
            (" \thush # no comment \n", " \thush # no comment "),
            ("a\nb\r\n", "a\nb"),
            ("päss€😀\n", "päss€😀"),
        ] {
            let (_file, read, finished) = secret_in_file(content.as_bytes())?;
            assert_eq!((read.expose(), finished), (secret.to_owned(), Ok(())));
            assert_eq!(format!("{read:?}"), "Secret(…)");
        }
        for content in [&b""[..], b"\n", b"\r\n", b"\xff\n"] {
            let (_file, _, finished) = secret_in_file(content)?;
            assert!(finished.is_err_and(|faults| faults.to_string().contains("PWD_FILE names")));
        }
        Ok(())
    }

    #[test]
    fn a_secret_file_is_read_each_time_and_one_that_is_away_changes_nothing() -> io::Result<()> {
        let (file, secret, _) = secret_in_file(b"first\n")?;
        let clone = secret.clone();
        std::fs::write(file.path(), "second\r\n")?;
        assert_eq!(secret.expose(), "second");
        std::fs::write(file.path(), "")?;
        assert_eq!(secret.expose(), "second");
        file.close()?;
        assert_eq!(
            (secret.expose(), clone.expose()),
            ("second".to_owned(), "second".to_owned())
        );
        Ok(())
    }

    proptest::proptest! {
        #[test]
        fn a_secret_of_any_characters_is_the_same_from_the_environment_and_from_a_file(secret in "[^\0]*[^\0\r\n]") {
            let mut env = Env::from_pairs([("PWD", secret.clone())]);
            proptest::prop_assert_eq!(env.secret("PWD").expose(), secret.clone());
            for line_break in ["", "\n", "\r\n"] {
                let (_file, read, _) = secret_in_file(format!("{secret}{line_break}").as_bytes())?;
                proptest::prop_assert_eq!(read.expose(), secret.clone());
            }
        }
    }

    #[test]
    fn an_environment_shows_its_names_only() {
        let env = Env::from_pairs([("A_PWD", "hush")]);
        assert_eq!(format!("{env:?}"), r#"{"A_PWD"}"#);
    }

    fn host(text: &str) -> Result<String, String> {
        let mut env = Env::from_pairs([("A_HOST", text)]);
        let host = env.host("A_HOST");
        env.finish(host).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_ipv6_may_have_brackets() {
        for (text, read) in [
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("::", "::"),
            ("[2001:DB8::0001]", "2001:db8::1"),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("write_model", "write_model"),
            ("API.Example.com.", "api.example.com."),
            ("bücher.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(read));
        }
        for text in [
            "fe80::1%eth0",
            "[fe80::1%25eth0]",
            "[::1",
            "::1]",
            "[127.0.0.1]",
            "[name]",
            "[]",
            "1::2::3",
            ":::1",
            "::1:80:80:80:80:80:80:80",
            "name:80",
            "127.0.0.1:80",
            "http://name",
            "user@name",
            "a/b",
            "a b",
            "256.0.0.1",
            "%41",
            "a?b",
            "a#b",
            " ",
        ] {
            assert!(
                host(text).is_err_and(|faults| faults.contains("A_HOST is malformed")),
                "{text}"
            );
        }
    }

    #[test]
    fn seconds_may_have_decimals() {
        let mut env = Env::from_pairs([("WAIT_S", "0.25")]);
        let wait = env.seconds_or("WAIT_S", Duration::from_secs(1));
        assert_eq!(env.finish(wait), Ok(Duration::from_millis(250)));
    }
}
