//! Reads the configuration from the environment alone (12-factor, III), and reports all faults at once.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use url::Host;

/// A reader of the environment that collects faults instead of stopping at the first.
///
/// Each getter returns a placeholder if its variable is missing or malformed. [`Env::finish`] then refuses the whole configuration and names
/// every faulty variable. An empty value counts as missing, because docker-compose passes unset variables as empty ones.
#[derive(Debug)]
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
    let mut content = std::fs::read_to_string(path)?;
    if content.ends_with('\n') {
        content.pop();
        if content.ends_with('\r') {
            content.pop();
        }
    }
    if content.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty"));
    }
    Ok(content)
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
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
                self.faults.push(format!(
                    "{name} is malformed: {text:?} is not a number of seconds above 0 and up to 86400"
                ));
                default
            }
        }
    }

    /// A required secret: the value of `NAME`, or the content of the file that `NAME_FILE` names, without one line break at its end.
    pub fn secret(&mut self, name: &str) -> Secret {
        let variable = format!("{name}_FILE");
        let (secret, file) = if let Some(path) = self.optional(&variable).map(PathBuf::from) {
            let secret = read_secret(&path).unwrap_or_else(|error| {
                self.fault(format!(
                    "{variable} names {}, which cannot be read: {error}",
                    path.display()
                ));
                String::new()
            });
            (secret, Some(SecretFile { variable, path }))
        } else {
            let secret = self.optional(name).unwrap_or_else(|| {
                self.missing::<()>(&format!("{name} (or {variable})"));
                String::new()
            });
            (secret, None)
        };
        Secret {
            last: Arc::new(Mutex::new(secret)),
            file,
        }
    }

    /// A required host: a name, an IPv4 address, or an IPv6 address with or without brackets.
    pub fn host(&mut self, name: &str) -> Host {
        let host = self.optional_host(name);
        if self.optional(name).is_none() {
            self.missing::<()>(name);
        }
        host.unwrap_or_else(|| Host::Domain(String::new()))
    }

    /// A host that may be absent.
    pub fn optional_host(&mut self, name: &str) -> Option<Host> {
        let text = self.optional(name)?;
        let host = parse_host(&text);
        if let Err(reason) = &host {
            self.fault(format!("{name} is malformed: {text:?} {reason}"));
        }
        host.ok()
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

/// A host in the form of URLs: names in lower case and in ASCII as in DNS, addresses in their canonical form.
fn parse_host(text: &str) -> Result<Host, &'static str> {
    let inner = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = inner.parse::<Ipv6Addr>() {
        return Ok(Host::Ipv6(address));
    }
    if inner
        .split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
    {
        return Err("has a zone, which a URL cannot name: use an address that needs none");
    }
    match Host::parse(text) {
        // In a URL `%41` would stand for a character.
        Ok(host) if !text.contains('%') => Ok(host),
        _ => Err("is neither a host name nor an IP address"),
    }
}

/// The host in the form that sockets and drivers accept: an IPv6 address without brackets.
#[must_use]
pub fn without_brackets(host: &Host) -> String {
    match host {
        Host::Ipv6(address) => address.to_string(),
        named => named.to_string(),
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

    fn secret_in_file(
        content: &[u8],
    ) -> std::io::Result<(tempfile::NamedTempFile, Secret, Result<(), ConfigFaults>)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), content)?;
        let mut env = Env::from_pairs([("PWD_FILE", file.path().to_string_lossy())]);
        let secret = env.secret("PWD");
        Ok((file, secret, env.finish(())))
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_line_break_and_never_shows_in_debug() -> std::io::Result<()> {
        let (_file, secret, finished) = secret_in_file(b"hush\n")?;
        assert_eq!(secret.expose(), "hush");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(finished, Ok(()));
        Ok(())
    }

    #[test]
    fn of_a_secret_file_one_line_break_at_the_end_is_left_out_and_nothing_else() -> std::io::Result<()> {
        for (content, secret) in [
            ("hush", "hush"),
            ("hush\r\n", "hush"),
            ("hush\n\n", "hush\n"),
            ("hush\r", "hush\r"),
            (" \thush # no comment \n", " \thush # no comment "),
            ("a\nb\r\n", "a\nb"),
            ("päss€😀\n", "päss€😀"),
        ] {
            let (_file, read, finished) = secret_in_file(content.as_bytes())?;
            assert_eq!(
                (read.expose().as_str(), finished),
                (secret, Ok(())),
                "{content:?}"
            );
        }
        for content in [&b""[..], b"\n", b"\r\n", b"\xff\n"] {
            let (_file, _, finished) = secret_in_file(content)?;
            let faults = finished.map_err(|faults| faults.to_string());
            assert!(
                faults.as_ref().is_err_and(|text| text.contains("PWD_FILE names")),
                "{faults:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_secret_file_is_read_each_time_and_one_that_is_away_changes_nothing() -> std::io::Result<()> {
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
    fn a_host_is_a_name_or_an_address_and_ipv6_may_have_brackets() {
        for (text, url, socket) in [
            ("::1", "[::1]", "::1"),
            ("[::1]", "[::1]", "::1"),
            ("::", "[::]", "::"),
            ("[2001:DB8::0001]", "[2001:db8::1]", "2001:db8::1"),
            ("::ffff:127.0.0.1", "[::ffff:7f00:1]", "::ffff:127.0.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("write_model", "write_model", "write_model"),
            ("API.Example.com.", "api.example.com.", "api.example.com."),
            ("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            let mut env = Env::from_pairs([("A_HOST", text)]);
            let host = env.host("A_HOST");
            assert_eq!(
                (host.to_string().as_str(), without_brackets(&host).as_str()),
                (url, socket),
                "{text}"
            );
            assert_eq!(env.finish(()), Ok(()), "{text}");
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
            let mut env = Env::from_pairs([("A_HOST", text)]);
            env.host("A_HOST");
            let faults = env.finish(()).map_err(|faults| faults.to_string());
            assert!(
                faults
                    .as_ref()
                    .is_err_and(|said| said.contains("A_HOST is malformed")),
                "{text}: {faults:?}"
            );
        }
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
