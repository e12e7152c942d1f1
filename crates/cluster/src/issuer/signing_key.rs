//! A key that signs tokens.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::account::private_file;

/// A key for one of the three algorithms that the services accept. Its id is made from its public key.
#[derive(Debug)]
pub struct SigningKey {
    id: String,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl SigningKey {
    /// A new key for ES256.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn es256() -> anyhow::Result<Self> {
        Self::from_es256(&new_es256()?)
    }

    /// A new key for EdDSA.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn ed25519() -> anyhow::Result<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| anyhow!("no random numbers"))?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|error| anyhow!("{error}"))?;
        Ok(Self::of(Pair::Ed25519(pair)))
    }

    /// An RSA key in PKCS #8, for RS256. (ring makes none.)
    ///
    /// # Errors
    /// It is not one.
    pub fn rs256(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|error| anyhow!("{error}"))?;
        Ok(Self::of(Pair::Rs256(pair)))
    }

    /// The key for ES256 in this file. If there is none, it is made, for this user alone.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn kept_in(file: &Path) -> anyhow::Result<Self> {
        let context = || format!("no key for tokens in {}", file.display());
        let pkcs8 = match fs::read_to_string(file) {
            Ok(text) => URL_SAFE_NO_PAD.decode(text.trim()).with_context(context)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let pkcs8 = new_es256()?;
                private_file(file, &URL_SAFE_NO_PAD.encode(&pkcs8), None)?;
                pkcs8
            }
            Err(error) => return Err(error).with_context(context),
        };
        Self::from_es256(&pkcs8).with_context(context)
    }

    fn from_es256(pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new());
        Ok(Self::of(Pair::Es256(pair.map_err(|error| anyhow!("{error}"))?)))
    }

    fn of(pair: Pair) -> Self {
        let public = match &pair {
            Pair::Es256(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::Rs256(pair) => pair.public_key().as_ref(),
        };
        let id = URL_SAFE_NO_PAD.encode(&digest(&SHA256, public).as_ref()[..12]);
        Self { id, pair }
    }

    /// The `kid` of its tokens.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public key as a JWK (RFC 7517).
    #[must_use]
    pub fn jwk(&self) -> Value {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let id = &self.id;
        match &self.pair {
            Pair::Es256(pair) => {
                // 4, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y), "kid": id, "alg": "ES256", "use": "sig"})
            }
            Pair::Ed25519(pair) => {
                let x = base64(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "alg": "EdDSA", "use": "sig"})
            }
            Pair::Rs256(pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "n": base64(&n), "e": base64(&e), "kid": id, "alg": "RS256", "use": "sig"})
            }
        }
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let algorithm = match &self.pair {
            Pair::Es256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rs256(_) => "RS256",
        };
        self.sign_with_header(&json!({"alg": algorithm, "typ": "JWT", "kid": self.id}), claims)
    }

    /// The same with any header. The signature is always that of the key's own algorithm.
    ///
    /// # Errors
    /// As there.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> anyhow::Result<String> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self
            .signature(message.as_bytes())
            .map_err(|_| anyhow!("no random numbers"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Es256(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

fn new_es256() -> anyhow::Result<Vec<u8>> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    Ok(pkcs8.map_err(|_| anyhow!("no random numbers"))?.as_ref().to_vec())
}
