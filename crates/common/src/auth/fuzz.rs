//! What is promised of every token, and of every document of keys.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Map, Value, json};

use super::keys::KeySet;
use super::ring_provider;
use super::token::Expected;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "pydist";

static SIGNING_KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let public = URL_SAFE_NO_PAD.encode(SIGNING_KEY.public_key());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": public, "kid": "k"});
    parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap()
});

fn parse(jwks: &[u8]) -> anyhow::Result<KeySet> {
    ring_provider::install();
    let expected = Expected {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        client_claim: "client_id".to_owned(),
    };
    KeySet::parse(jwks, &expected)
}

/// `data` is a token, or a header and claims in two lines, which are signed here. No token is accepted that the issuer has not signed, by its
/// key's algorithm, for this audience and a client, and whose signature is whole.
///
/// # Panics
///
/// If that is not so.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some((header, claims)) = text.split_once('\n') else {
        assert!(KEYS.verify(text).is_err());
        return;
    };
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut signature = SIGNING_KEY.sign(signed.as_bytes()).as_ref().to_vec();
    let token = |signature: &[u8]| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let Ok(bearer) = KEYS.verify(&token(&signature)) else {
        return;
    };
    let header: Value = serde_json::from_str(header).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &json!("k")));
    assert!(header.get("crit").is_none_or(Value::is_null));
    let claims: Map<String, Value> = serde_json::from_str(claims).unwrap();
    assert_eq!(claims["iss"], ISSUER);
    match &claims["aud"] {
        Value::Array(audiences) => assert!(audiences.contains(&AUDIENCE.into())),
        audience => assert_eq!(audience, AUDIENCE),
    }
    assert!(bearer.client_id > 0 && !bearer.has_expired());
    let client = &claims["client_id"];
    let client = client.as_str().map_or_else(|| client.to_string(), str::to_owned);
    assert_eq!(client.parse(), Ok(bearer.client_id));
    let has_scope = |scope| {
        claims
            .get("scope")
            .and_then(Value::as_str)
            .is_some_and(|scopes| scopes.contains(scope))
    };
    assert!(!bearer.may("orders:write") || has_scope("orders:write"));
    for byte in [0, 31, 63] {
        signature[byte] ^= 1;
        assert!(KEYS.verify(&token(&signature)).is_err());
        signature[byte] ^= 1;
    }
    assert!(KEYS.verify(&token(b"")).is_err());
}

/// Keys that are read have names, are the same when they are read again, and accept no token that was not signed.
///
/// # Panics
///
/// If that is not so.
pub fn jwks(data: &[u8]) {
    let Ok(keys) = parse(data) else {
        return;
    };
    assert!(keys.is_same(&parse(data).unwrap()));
    assert!(!keys.ids().is_empty());
    let claims =
        json!({"iss": ISSUER, "aud": AUDIENCE, "exp": 4_000_000_000_u64, "client_id": 1}).to_string();
    for id in keys.ids() {
        for algorithm in ["none", "HS256", "RS256", "ES256", "EdDSA"] {
            let header = json!({"alg": algorithm, "kid": id}).to_string();
            let [header, claims] = [&header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part));
            for signature in [&[][..], &[0; 64], &[0; 256]] {
                let signature = URL_SAFE_NO_PAD.encode(signature);
                assert!(keys.verify(&format!("{header}.{claims}.{signature}")).is_err());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_promise_of_tokens_holds_for_the_corpus() {
        fuzz::replay("token", super::token);
    }

    #[test]
    fn the_promise_of_keys_holds_for_the_corpus() {
        fuzz::replay("jwks", super::jwks);
    }
}
