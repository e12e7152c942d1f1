//! The configuration.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::keys::KeySet;
use super::token::Expected;
use crate::env::Env;

/// An unknown key is asked for at most once in this time, unless `AUTH_JWKS_REFETCH_S` says otherwise.
const REFETCH: Duration = Duration::from_secs(60);

/// How clients are told apart: `AUTH_MODE`.
#[derive(Debug, Clone)]
pub enum Auth {
    /// They are not: every request is client 1's.
    None,
    /// By tokens.
    Jwt(Jwt),
}

/// The issuer of the tokens, and what a token must claim.
#[derive(Debug, Clone)]
pub struct Jwt {
    pub(super) expected: Expected,
    pub(super) source: Source,
    pub(super) refetch: Duration,
    /// A PEM file with authorities that the client of the URL trusts besides the public ones.
    pub(super) extra_ca: Option<PathBuf>,
}

/// Where the issuer's keys are, a JWKS (RFC 7517).
#[derive(Debug, Clone)]
pub(super) enum Source {
    Url(Url),
    File(PathBuf),
}

impl Auth {
    /// Reads `AUTH_MODE` (default: `none`), and for `jwt` `AUTH_ISSUER`, `AUTH_AUDIENCE`, `AUTH_JWKS_URL` or `AUTH_JWKS_FILE`,
    /// `AUTH_CLIENT_CLAIM` (default: `client_id`), `AUTH_JWKS_REFETCH_S` and `EXTRA_CA_FILE`.
    pub fn from_env(env: &mut Env) -> Self {
        match env.one_of("AUTH_MODE", &["none", "jwt"]) {
            Some("jwt") => Jwt::from_env(env).map_or(Self::None, Self::Jwt),
            _ => {
                env.refuse_in_production("AUTH_MODE is not jwt, so whoever asks is client 1");
                Self::None
            }
        }
    }
}

impl Jwt {
    /// `None` if there is no usable source of keys, which is a fault in `env`.
    fn from_env(env: &mut Env) -> Option<Self> {
        let expected = Expected {
            issuer: env.string("AUTH_ISSUER"),
            audience: env.string("AUTH_AUDIENCE"),
            client_claim: env.string_or("AUTH_CLIENT_CLAIM", "client_id"),
        };
        let refetch = env.seconds_or("AUTH_JWKS_REFETCH_S", REFETCH);
        let extra_ca = env.optional("EXTRA_CA_FILE").map(PathBuf::from);
        let source = Source::from_env(env, &expected)?;
        Some(Self {
            expected,
            source,
            refetch,
            extra_ca,
        })
    }
}

impl Source {
    fn from_env(env: &mut Env, expected: &Expected) -> Option<Self> {
        match (env.optional("AUTH_JWKS_URL"), env.optional("AUTH_JWKS_FILE")) {
            (Some(text), None) => match Url::parse(&text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {
                    if url.scheme() == "http" {
                        env.refuse_in_production(
                            "AUTH_JWKS_URL is not https, so somebody may give us keys of their own",
                        );
                    }
                    Some(Self::Url(url))
                }
                _ => {
                    env.malformed(
                        "AUTH_JWKS_URL",
                        &text,
                        "is not a URL that begins with https:// or http://",
                    );
                    None
                }
            },
            (None, Some(text)) => {
                let path = PathBuf::from(text);
                let read = std::fs::read(&path).map_err(anyhow::Error::from);
                if let Err(error) = read.and_then(|json| KeySet::parse(&json, expected)) {
                    env.fault(format!(
                        "AUTH_JWKS_FILE names {path:?}, which cannot be used: {error:#}"
                    ));
                    return None;
                }
                Some(Self::File(path))
            }
            (None, None) => {
                env.fault(
                    "AUTH_MODE=jwt needs the issuer's keys: set AUTH_JWKS_URL or AUTH_JWKS_FILE".to_owned(),
                );
                None
            }
            (Some(_), Some(_)) => {
                env.fault(
                    "AUTH_JWKS_URL and AUTH_JWKS_FILE are both set: keys come from one of them".to_owned(),
                );
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Auth, String> {
        let mut env = Env::from_pairs(variables.iter().copied());
        let auth = Auth::from_env(&mut env);
        env.finish(auth).map_err(|faults| faults.to_string())
    }

    #[test]
    fn without_a_mode_nobody_is_asked_for_a_token() {
        for variables in [&[][..], &[("AUTH_MODE", "")], &[("AUTH_MODE", "none")]] {
            assert!(matches!(read(variables), Ok(Auth::None)), "{variables:?}");
        }
        assert!(read(&[("AUTH_MODE", "off")]).is_err_and(|faults| faults.contains("AUTH_MODE")));
    }

    #[test]
    fn every_missing_or_faulty_variable_of_jwt_is_named_at_once() {
        let faults = read(&[("AUTH_MODE", "jwt")]).unwrap_err();
        for name in ["AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL", "AUTH_JWKS_FILE"] {
            assert!(faults.contains(name), "{name} is missing in: {faults}");
        }
        let ours = [
            ("AUTH_MODE", "jwt"),
            ("AUTH_ISSUER", "https://issuer.example"),
            ("AUTH_AUDIENCE", "pydist"),
        ];
        for (source, complaint) in [
            (&[("AUTH_JWKS_URL", "ftp://x")][..], "AUTH_JWKS_URL"),
            (&[("AUTH_JWKS_URL", "x")], "AUTH_JWKS_URL"),
            (&[("AUTH_JWKS_FILE", "/nowhere/keys.json")], "/nowhere/keys.json"),
            (&[("AUTH_JWKS_FILE", "/dev/null")], "/dev/null"),
            (
                &[
                    ("AUTH_JWKS_FILE", "/dev/null"),
                    ("AUTH_JWKS_URL", "https://issuer.example/keys"),
                ],
                "both set",
            ),
        ] {
            let faults = read(&[&ours[..], source].concat()).unwrap_err();
            assert!(faults.contains(complaint), "{faults}");
        }
        let url = ("AUTH_JWKS_URL", "https://issuer.example/keys");
        assert!(matches!(read(&[&ours[..], &[url]].concat()), Ok(Auth::Jwt(_))));
    }
}
