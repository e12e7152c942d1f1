//! Tokens that somebody forged, borrowed or kept too long.

use super::*;

/// What it is, the token, and a part of the reason in the answer.
type Refused = (&'static str, String, &'static str);

/// Tokens that the issuer has signed, but not for us, not for now, or not for a client.
fn not_for_us(key: &SigningKey, good: &Value) -> anyhow::Result<Vec<Refused>> {
    let now = good["iat"].as_i64().context("no iat")?;
    let with = |what, claim, value, reason| Ok((what, key.sign(&changed(good, claim, value))?, reason));
    let lacking = |what, claim, reason| Ok((what, key.sign(&without(good, claim))?, reason));
    [
        with("expired", "exp", json!(now - 31), "it has expired"),
        with("an end that is none", "exp", json!("never"), ""),
        lacking("no end", "exp", "lacks"),
        with("not valid yet", "nbf", json!(now + 60), "not valid yet"),
        with("foreign audience", "aud", json!("others"), "another audience"),
        with(
            "foreign audiences",
            "aud",
            json!(["others", "more"]),
            "another audience",
        ),
        lacking("no audience", "aud", "lacks"),
        with(
            "foreign issuer",
            "iss",
            json!("https://other.example"),
            "another issuer",
        ),
        lacking("no issuer", "iss", "lacks"),
        lacking("no client", "client_id", "names no client"),
        with("client 0", "client_id", json!(0), "names no client"),
        with(
            "a scope that is a list",
            "scope",
            json!(["orders:write"]),
            "scope",
        ),
    ]
    .into_iter()
    .collect()
}

/// Tokens that the issuer has not signed, or not with the algorithm of its key.
fn forgeries(key: &SigningKey, good: &Value) -> anyhow::Result<Vec<Refused>> {
    const ANOTHER: &str = "not signed by";
    let header = |algorithm: &str| json!({"alg": algorithm, "kid": key.id()});
    let unsigned = |algorithm: &str| with_signature(&header(algorithm), good, |_| Vec::new());
    let hs256 = |secret: &[u8]| {
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let sign = |message: &[u8]| ring::hmac::sign(&secret, message).as_ref().to_vec();
        with_signature(&header("HS256"), good, sign)
    };
    let jwk = key.jwk();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap_or_default());
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    let signed = key.sign(good)?;
    let (message, _) = signed.rsplit_once('.').context("no signature")?;
    let stranger = SigningKey::es256()?;
    let of_stranger = stranger.sign_with_header(&header("ES256"), good)?;
    let (_, strange_signature) = of_stranger.rsplit_once('.').context("no signature")?;
    let (_, signature) = signed.rsplit_once('.').context("no signature")?;
    let (head, _) = message.split_once('.').context("no claims")?;
    let other_claims = URL_SAFE_NO_PAD.encode(changed(good, "client_id", json!(2)).to_string());
    let extended = json!({"alg": "ES256", "kid": key.id(), "crit": ["b64"], "b64": true});
    Ok(vec![
        ("alg none", unsigned("none"), ""),
        ("alg None", unsigned("None"), ""),
        ("HS256 with the public key", hs256(&point), ANOTHER),
        ("HS256 with the JWK", hs256(jwk.to_string().as_bytes()), ANOTHER),
        ("HS256 with the JWKS", hs256(jwks([key]).as_bytes()), ANOTHER),
        ("HS256 with nothing", hs256(b""), ANOTHER),
        (
            "an algorithm of its family",
            key.sign_with_header(&header("ES384"), good)?,
            ANOTHER,
        ),
        (
            "the algorithm of another key",
            key.sign_with_header(&header("EdDSA"), good)?,
            ANOTHER,
        ),
        ("unknown kid", stranger.sign(good)?, "a key that is not known"),
        (
            "a key of its own",
            key.sign_with_header(&json!({"alg": "ES256", "jwk": jwk}), good)?,
            "no kid",
        ),
        (
            "known kid, another key",
            format!("{message}.{strange_signature}"),
            "signature is wrong",
        ),
        ("no signature", format!("{message}."), "signature is wrong"),
        (
            "other claims",
            format!("{head}.{other_claims}.{signature}"),
            "signature is wrong",
        ),
        (
            "an extension",
            key.sign_with_header(&extended, good)?,
            "extension",
        ),
        ("nonsense", "nonsense".to_owned(), "not a JWT"),
        ("dots", "..".to_owned(), "not a JWT"),
    ])
}

fn with_signature(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn expired_foreign_audience_alg_none_hs256_with_the_public_key_and_unknown_kid_are_401()
-> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let key = &cluster.issuer()?.key;
    let good = claims(1, ALL_SCOPES, 3600)?;
    for (what, token, reason) in [not_for_us(key, &good)?, forgeries(key, &good)?].concat() {
        let order = put(&cluster, &token, &new_order("USD", "1.00")).await?;
        let page = page(&cluster, &token, "").await?;
        for answer in [&order, &page] {
            assert_eq!(answer.status, 401, "{what}: {answer:?}");
            let challenge = "Bearer error=\"invalid_token\"";
            assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
            let detail = answer.detail();
            assert!(
                detail.starts_with("the token is not accepted: "),
                "{what}: {detail}"
            );
            assert!(detail.contains(reason), "{what}: {detail}");
        }
    }
    assert_eq!(orders_in_the_book(&cluster).await?, 0);
    assert_eq!(statuses(&cluster, &key.sign(&good)?).await?, [200, 200]);
    Ok(())
}
