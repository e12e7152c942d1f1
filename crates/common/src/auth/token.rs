//! What a token claims.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Clocks of issuers differ by this much.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// What a token must claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// The claim `iss`.
    pub(super) issuer: String,
    /// What the claim `aud` is or contains.
    pub(super) audience: String,
    /// The name of the claim with the client's number.
    pub(super) client_claim: String,
}

/// What a verified token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) client_id: i64,
    /// Separated by spaces.
    scopes: String,
    expires_at: SystemTime,
}

impl Bearer {
    /// Reads the claims of a token whose signature, issuer, audience and times were verified.
    pub(super) fn of(claims: &Map<String, Value>, client_claim: &str) -> Result<Self, Refusal> {
        let client_id = claims.get(client_claim).and_then(client_number);
        let scopes = match claims.get("scope") {
            None | Some(Value::Null) => "",
            Some(scopes) => scopes.as_str().ok_or(Refusal::Token("its scope is not a text"))?,
        };
        Ok(Self {
            client_id: client_id.ok_or(Refusal::Token("it names no client"))?,
            scopes: scopes.to_owned(),
            expires_at: claims
                .get("exp")
                .and_then(time)
                .ok_or(Refusal::Token("it does not say when it expires"))?,
        })
    }

    pub(super) fn may(&self, scope: &str) -> bool {
        self.scopes.split(' ').any(|granted| granted == scope)
    }

    /// Whether it has expired since it was verified.
    pub(super) fn has_expired(&self) -> bool {
        SystemTime::now() - LEEWAY > self.expires_at
    }
}

/// Issuers write their own claims as numbers or as texts.
fn client_number(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        value => value.as_i64(),
    };
    number.filter(|number| *number > 0)
}

/// Seconds since 1970, which may have decimals (RFC 7519). They are cut off: a token ends earlier rather than later.
fn time(value: &Value) -> Option<SystemTime> {
    let seconds = value.to_string();
    let whole = seconds.split('.').next()?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(whole))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn bearer(claims: &Value) -> Result<Bearer, Refusal> {
        Bearer::of(claims.as_object().unwrap(), "client_id")
    }

    #[test]
    fn a_client_is_a_positive_number_written_as_a_number_or_as_digits() {
        for client in [json!(7), json!("7"), json!("007")] {
            let claims = json!({"client_id": client, "exp": 4_000_000_000_u64});
            assert_eq!(bearer(&claims).unwrap().client_id, 7, "{client}");
        }
        for client in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("1.5"),
            json!("+7"),
            json!(""),
            json!("x"),
            json!(null),
            json!([7]),
            json!(9_223_372_036_854_775_808_u64),
            json!("9223372036854775808"),
        ] {
            let claims = json!({"client_id": client, "exp": 4_000_000_000_u64});
            assert!(matches!(bearer(&claims), Err(Refusal::Token(_))), "{client}");
        }
    }

    #[test]
    fn a_scope_is_a_whole_word() {
        let claims = json!({"client_id": 1, "exp": 4_000_000_000_u64, "scope": "openid orders:read"});
        let bearer = bearer(&claims).unwrap();
        assert!(bearer.may("orders:read") && bearer.may("openid"));
        assert!(!bearer.may("orders:write") && !bearer.may("orders") && !bearer.may("read"));
    }

    #[test]
    fn a_time_of_expiry_may_have_decimals_and_must_be_one() {
        let expires =
            |exp: Value| bearer(&json!({"client_id": 1, "exp": exp})).map(|bearer| bearer.has_expired());
        assert_eq!(expires(json!(4_000_000_000.5)), Ok(false));
        assert_eq!(expires(json!(1_000_000_000)), Ok(true));
        for exp in [
            json!(null),
            json!("tomorrow"),
            json!(u64::MAX),
            json!(-1),
            json!(1e300),
        ] {
            assert!(matches!(expires(exp.clone()), Err(Refusal::Token(_))), "{exp}");
        }
    }
}
