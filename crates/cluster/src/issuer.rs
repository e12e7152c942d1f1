//! An issuer of tokens, for development and tests: it gives a token to whoever can read its key. A deployment has a real one.

mod keys_server;
mod signing_key;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

pub use keys_server::KeysServer;
pub use signing_key::SigningKey;

/// The claim `iss` of its tokens.
pub const ISSUER: &str = "https://issuer.pydist.invalid";

/// The claim `aud`.
pub const AUDIENCE: &str = "pydist";

/// What a client may be allowed: to place orders and to read them.
pub const ALL_SCOPES: &str = "orders:write orders:read";

/// The claims of a token that is valid for so many seconds from now on.
///
/// # Errors
/// The clock stands before 1970.
pub fn claims(client_id: i64, scope: &str, lifetime_s: u64) -> anyhow::Result<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.context("the clock stands before 1970")?.as_secs();
    Ok(json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "client_id": client_id,
        "scope": scope,
        "iat": now,
        "exp": now.saturating_add(lifetime_s),
    }))
}

/// A JWKS (RFC 7517) of these keys.
#[must_use]
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a SigningKey>) -> String {
    let keys: Vec<Value> = keys.into_iter().map(SigningKey::jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// The variables with which services accept tokens that are signed with the keys at this URL.
#[must_use]
pub fn variables(keys_url: &str) -> [(&'static str, String); 6] {
    [
        ("AUTH_MODE", "jwt".to_owned()),
        ("AUTH_ISSUER", ISSUER.to_owned()),
        ("AUTH_AUDIENCE", AUDIENCE.to_owned()),
        ("AUTH_JWKS_URL", keys_url.to_owned()),
        ("AUTH_JWKS_FILE", String::new()),
        ("AUTH_CLIENT_CLAIM", "client_id".to_owned()),
    ]
}
