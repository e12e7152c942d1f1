//! The issuer's public keys, and what they have verified.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::token::{Bearer, Expected, LEEWAY};

/// A token is sent with many requests, and verifying a signature takes longer than all else that is done for a request here. So many tokens
/// are remembered, about 1 kB each.
const REMEMBERED_TOKENS: usize = 10_000;

/// Some keys of the issuer. Tokens that they have verified are remembered, and forgotten with them.
#[derive(Debug)]
pub(super) struct KeySet {
    by_id: HashMap<String, Key>,
    client_claim: String,
    verified: Cache<Box<str>, Arc<Bearer>>,
}

#[derive(Debug, Clone)]
struct Key {
    jwk: Jwk,
    decoding: DecodingKey,
    validation: Validation,
}

impl KeySet {
    /// Reads a JWKS (RFC 7517). Keys that are not for RS256, ES256 or EdDSA signatures, or have no `kid`, are left out.
    ///
    /// # Errors
    /// It is not a JWKS, or has no usable key.
    pub(super) fn parse(json: &[u8], expected: &Expected) -> anyhow::Result<Self> {
        let set: JwkSet = serde_json::from_slice(json).context("it is not a JWKS")?;
        let mut by_id = HashMap::new();
        for jwk in set.keys {
            let (Some(id), Some(algorithm)) = (jwk.common.key_id.clone(), algorithm(&jwk)) else {
                continue;
            };
            let decoding =
                DecodingKey::from_jwk(&jwk).with_context(|| format!("its key {id:?} is malformed"))?;
            let validation = validation(algorithm, expected);
            let key = Key {
                jwk,
                decoding,
                validation,
            };
            ensure!(by_id.insert(id.clone(), key).is_none(), "it has two keys {id:?}");
        }
        ensure!(
            !by_id.is_empty(),
            "it has no key with a kid that is for signatures by RS256, ES256 or EdDSA"
        );
        Ok(Self {
            by_id,
            client_claim: expected.client_claim.clone(),
            verified: Cache::new(REMEMBERED_TOKENS),
        })
    }

    /// Whether both have the same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |id, key: &Key| other.by_id.get(id).is_some_and(|theirs| theirs.jwk == key.jwk);
        self.by_id.len() == other.by_id.len() && self.by_id.iter().all(|(id, key)| same(id, key))
    }

    pub(super) fn ids(&self) -> Vec<&str> {
        self.by_id.keys().map(String::as_str).collect()
    }

    /// The bearer of a token that one of these keys has signed, and that is valid now.
    pub(super) fn verify(&self, token: &str) -> Result<Arc<Bearer>, Refusal> {
        if let Some(bearer) = self.verified.get(token) {
            if bearer.has_expired() {
                self.verified.remove(token);
                return Err(Refusal::Token(EXPIRED));
            }
            return Ok(bearer);
        }
        let bearer = Arc::new(self.verify_anew(token)?);
        self.verified.insert(token.into(), Arc::clone(&bearer));
        Ok(bearer)
    }

    fn verify_anew(&self, token: &str) -> Result<Bearer, Refusal> {
        let header = decode_header(token).map_err(|error| Refusal::Token(reason(error.kind())))?;
        // RFC 7515, 4.1.11: what a recipient must understand, and we understand no extension.
        if header.crit.is_some() {
            return Err(Refusal::Token(
                "its header demands an extension that is not known",
            ));
        }
        let id = header.kid.ok_or(Refusal::Token("its header has no kid"))?;
        let key = self.by_id.get(&id).ok_or(Refusal::UnknownKey)?;
        let claims = decode::<Map<String, Value>>(token, &key.decoding, &key.validation)
            .map_err(|error| Refusal::Token(reason(error.kind())))?
            .claims;
        Bearer::of(&claims, &self.client_claim)
    }
}

const EXPIRED: &str = "it has expired";

/// The one algorithm that a key is used with. A token cannot choose another one for it (RFC 8725, 3.1).
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let is_for_it = jwk.common.key_algorithm.is_none_or(|given| given == named);
    let is_for_signatures =
        !matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
    (is_for_it && is_for_signatures).then_some(algorithm)
}

fn validation(algorithm: Algorithm, expected: &Expected) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    validation
}

fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => EXPIRED,
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::MissingAlgorithm => {
            "it is not signed by RS256, ES256 or EdDSA with the algorithm of its key"
        }
        ErrorKind::MissingRequiredClaim(_) => "it lacks one of the claims exp, iss and aud",
        ErrorKind::InvalidClaimFormat(_) => "one of its times is malformed",
        _ => "it is not a JWT",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"ed"}"#;

    fn expected() -> Expected {
        Expected {
            issuer: "https://issuer.example".to_owned(),
            audience: "pydist".to_owned(),
            client_claim: "client_id".to_owned(),
        }
    }

    fn parse(keys: &str) -> Result<KeySet, String> {
        KeySet::parse(format!("{{\"keys\":[{keys}]}}").as_bytes(), &expected())
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn keys_of_other_kinds_are_left_out_and_a_set_without_one_of_ours_is_refused() {
        let others = [
            r#"{"kty":"oct","k":"c2VjcmV0","kid":"hs","alg":"HS256"}"#,
            r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA","kid":"es384"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"ps","alg":"PS256"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"enc","use":"enc"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA","kid":"pq"}"#,
        ]
        .join(",");
        assert!(parse(&others).is_err_and(|error| error.contains("no key")));
        let mixed = parse(&format!("{others},{ED25519}")).unwrap();
        assert_eq!(mixed.ids(), ["ed"]);
        assert!(parse(&format!("{ED25519},{ED25519}")).is_err_and(|error| error.contains("two keys")));
        assert!(parse("1").is_err_and(|error| error.contains("not a JWKS")));
    }

    #[test]
    fn sets_with_the_same_keys_are_the_same() {
        let first = parse(ED25519).unwrap();
        let other = ED25519.replace("\"x\":\"11", "\"x\":\"22");
        assert!(first.is_same(&parse(ED25519).unwrap()));
        assert!(!first.is_same(&parse(&other).unwrap()));
    }

    #[test]
    fn what_is_no_token_is_refused_with_a_reason_and_never_a_panic() {
        let keys = parse(ED25519).unwrap();
        for token in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "é.é.é",
            &"x".repeat(100_000),
            "e30.e30.e30",
        ] {
            assert!(
                matches!(keys.verify(token), Err(Refusal::Token(_))),
                "{token:.20}"
            );
        }
        // {"alg":"EdDSA","kid":"other"} and {"alg":"EdDSA","kid":"ed","crit":["exp"]}
        assert_eq!(
            keys.verify("eyJhbGciOiJFZERTQSIsImtpZCI6Im90aGVyIn0.e30.AA"),
            Err(Refusal::UnknownKey)
        );
        let demanding = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwiY3JpdCI6WyJleHAiXX0.e30.AA";
        assert!(matches!(keys.verify(demanding), Err(Refusal::Token(why)) if why.contains("extension")));
    }
}
