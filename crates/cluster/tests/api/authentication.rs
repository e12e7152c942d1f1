//! Who may ask: `AUTH_MODE=none`, and `AUTH_MODE=jwt` with a real issuer of tokens.

mod clients;
mod issuer;
mod refused_tokens;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cluster::issuer::{ALL_SCOPES, SigningKey, claims, jwks};
use cluster::{Cluster, Options, Service, bearer, new_order, order_with_key, wait_until};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use Service::{BtcPrice, CreateBuyOrder, FetchBuyOrders, ReadModelSync};

const LIMIT: Duration = Duration::from_secs(30);

/// What both services need for an order that is then on a page.
async fn cluster_with_tokens() -> anyhow::Result<Cluster> {
    Cluster::start(options()).await
}

fn options() -> Options {
    let both = [CreateBuyOrder, FetchBuyOrders];
    let options = Options::only(&[BtcPrice, CreateBuyOrder, ReadModelSync, FetchBuyOrders]).with_tokens();
    both.into_iter().fold(options, |options, service| {
        options.with_env(service, "AUTH_JWKS_REFETCH_S", "1")
    })
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }

    /// The order in an answer to `PUT /buy_order`.
    fn order_id(&self) -> &str {
        self.body["buy_order"]["id"].as_str().unwrap_or_default()
    }
}

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.json().await?,
    })
}

/// A client without a token of its own.
fn stranger() -> anyhow::Result<reqwest::Client> {
    cluster::http_client()
}

async fn put(cluster: &Cluster, token: &str, order: &Value) -> anyhow::Result<Answer> {
    let url = cluster.url(CreateBuyOrder) + "/buy_order";
    send(stranger()?.put(url).headers(bearer(token)?).json(order)).await
}

async fn page(cluster: &Cluster, token: &str, query: &str) -> anyhow::Result<Answer> {
    let url = format!("{}/buy_orders?{query}", cluster.url(FetchBuyOrders));
    send(stranger()?.get(url).headers(bearer(token)?)).await
}

/// The statuses with which both services answer a token.
async fn statuses(cluster: &Cluster, token: &str) -> anyhow::Result<[u16; 2]> {
    let order = put(cluster, token, &new_order("USD", "1.00")).await?;
    Ok([order.status, page(cluster, token, "").await?.status])
}

/// A token of this client with both scopes.
fn token_of(cluster: &Cluster, client: i64) -> anyhow::Result<String> {
    cluster.issuer()?.key.sign(&claims(client, ALL_SCOPES, 3600)?)
}

/// One more client in the write model.
async fn new_client(cluster: &Cluster) -> anyhow::Result<i64> {
    let id = sqlx::query_scalar("INSERT INTO client (email) VALUES ('second@example.com') RETURNING id");
    Ok(id.fetch_one(cluster.write_model()).await?)
}

async fn orders_in_the_book(cluster: &Cluster) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM buy_order");
    Ok(count.fetch_one(cluster.write_model()).await?)
}

/// Waits until a page of this client shows the order.
async fn is_on_the_page(cluster: &Cluster, token: &str, order: &str) -> anyhow::Result<()> {
    wait_until("the order is on the page", LIMIT, async || {
        Ok(page(cluster, token, "").await?.body.to_string().contains(order))
    })
    .await
}

fn changed(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn without(claims: &Value, name: &str) -> Value {
    let mut claims = claims.clone();
    if let Some(claims) = claims.as_object_mut() {
        claims.remove(name);
    }
    claims
}

#[tokio::test]
async fn without_a_token_the_default_accepts_orders() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[
        BtcPrice,
        CreateBuyOrder,
        ReadModelSync,
        FetchBuyOrders,
    ]))
    .await?;
    let order = send(cluster.put_order(&new_order("USD", "1.00"))).await?;
    assert_eq!(order.status, 200, "{order:?}");
    // What is not asked for is not looked at.
    is_on_the_page(&cluster, "nonsense", order.order_id()).await
}

#[tokio::test]
async fn with_jwt_a_request_without_a_token_is_401() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let put = cluster.url(CreateBuyOrder) + "/buy_order";
    let get = cluster.url(FetchBuyOrders) + "/buy_orders?page_size=nonsense";
    let large = "x".repeat(4 * 1024 * 1024);
    for request in [
        stranger()?.put(&put).json(&new_order("USD", "1.00")),
        // Who may not ask does not learn what else is wrong.
        stranger()?.put(&put).body("nonsense"),
        stranger()?.put(&put).body(large),
        stranger()?
            .put(&put)
            .header("authorization", "Basic dXNlcjpwd2Q="),
        stranger()?.get(&get),
    ] {
        let answer = send(request).await?;
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(
            answer.detail(),
            "a bearer token is needed: Authorization: Bearer <token>"
        );
        assert_eq!(answer.header("x-request-id").len(), 36, "{answer:?}");
    }
    assert_eq!(orders_in_the_book(&cluster).await?, 0);
    // Two tokens are as good as none: it is not clear whose request it is.
    let token = cluster.issuer()?.token()?;
    let twice = stranger()?
        .put(&put)
        .headers(bearer(&token)?)
        .header("authorization", format!("Bearer {token}"));
    assert_eq!(send(twice.json(&new_order("USD", "1.00"))).await?.status, 401);
    for path in ["/healthcheck", "/readyz", "/openapi.json"] {
        for service in [CreateBuyOrder, FetchBuyOrders] {
            let answer = stranger()?.get(cluster.url(service) + path).send().await?;
            assert_eq!(answer.status(), 200, "{path} of {service:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_description_asks_for_a_token_where_one_is_needed() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    for (service, scope) in [(CreateBuyOrder, "orders:write"), (FetchBuyOrders, "orders:read")] {
        let document = send(stranger()?.get(cluster.url(service) + "/openapi.json"))
            .await?
            .body;
        let scheme = &document["components"]["securitySchemes"]["token"];
        assert_eq!(
            (&scheme["type"], &scheme["scheme"]),
            (&json!("http"), &json!("bearer")),
            "{document}"
        );
        assert!(scheme["description"].to_string().contains(scope));
        let operation = match service {
            CreateBuyOrder => &document["paths"]["/buy_order"]["put"],
            _ => &document["paths"]["/buy_orders"]["get"],
        };
        assert_eq!(operation["security"], json!([{"token": []}]));
        // What everyone may ask needs none.
        let health = &document["paths"]["/healthcheck"]["get"];
        assert!(health.is_object() && health.get("security").is_none() && document.get("security").is_none());
        let example = |status: u16| {
            &operation["responses"][status.to_string()]["content"]["application/json"]["example"]
        };
        let without_scope = cluster.issuer()?.key.sign(&claims(1, "", 3600)?)?;
        let refused = match service {
            CreateBuyOrder => put(&cluster, &without_scope, &new_order("USD", "1.00")).await?,
            _ => page(&cluster, &without_scope, "").await?,
        };
        assert_eq!((refused.status, &refused.body), (403, example(403)));
        assert_eq!(
            example(401)["detail"],
            "a bearer token is needed: Authorization: Bearer <token>"
        );
    }
    Ok(())
}

#[tokio::test]
async fn tokens_by_rs256_es256_and_eddsa_are_accepted() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let pkcs8 = include_str!("rsa_key_of_tests.b64").replace('\n', "");
    let keys = [
        SigningKey::rs256(&STANDARD.decode(pkcs8)?)?,
        SigningKey::es256()?,
        SigningKey::ed25519()?,
    ];
    cluster.issuer()?.keys_server.publish(&keys);
    for key in &keys {
        let token = key.sign(&claims(1, ALL_SCOPES, 3600)?)?;
        wait_until("the key is known", LIMIT, async || {
            Ok(statuses(&cluster, &token).await? == [200, 200])
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_scope_is_403() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let key = &cluster.issuer()?.key;
    for (scope, expected) in [
        ("orders:write", [200, 403]),
        ("orders:read", [403, 200]),
        ("", [403, 403]),
        ("orders orders:write:all xorders:read", [403, 403]),
    ] {
        let token = key.sign(&claims(1, scope, 3600)?)?;
        assert_eq!(statuses(&cluster, &token).await?, expected, "{scope:?}");
    }
    let none = key.sign(&without(&claims(1, "", 3600)?, "scope"))?;
    let refused = put(&cluster, &none, &new_order("USD", "1.00")).await?;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.detail(), "the token does not have the scope orders:write");
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"orders:write\"";
    assert_eq!(refused.header("www-authenticate"), challenge);
    Ok(())
}

#[tokio::test]
async fn the_clock_has_30_s_of_leeway() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let key = &cluster.issuer()?.key;
    let status = async |name: &str, offset: i64| {
        let claims = claims(1, ALL_SCOPES, 3600)?;
        let now = claims["iat"].as_i64().context("no iat")?;
        let token = key.sign(&changed(&claims, name, json!(now + offset)))?;
        statuses(&cluster, &token).await
    };
    assert_eq!(status("exp", -20).await?, [200, 200]);
    assert_eq!(status("exp", -32).await?, [401, 401]);
    assert_eq!(status("nbf", 20).await?, [200, 200]);
    assert_eq!(status("nbf", 60).await?, [401, 401]);

    // A token that was accepted before ends as others do.
    let mut claims = claims(1, ALL_SCOPES, 3600)?;
    claims["exp"] = json!(claims["iat"].as_i64().context("no iat")? - 25);
    let ending = key.sign(&claims)?;
    assert_eq!(statuses(&cluster, &ending).await?, [200, 200]);
    wait_until("the token has expired", LIMIT, async || {
        Ok(statuses(&cluster, &ending).await? == [401, 401])
    })
    .await
}

#[tokio::test]
async fn refusals_are_counted_and_logged_without_the_token() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let key = &cluster.issuer()?.key;
    let expired = key.sign(&changed(&claims(1, ALL_SCOPES, 0)?, "exp", json!(1)))?;
    assert_eq!(
        put(&cluster, &expired, &new_order("USD", "1.00")).await?.status,
        401
    );
    let series = |reason: &str| format!("requests_not_authorized_total{{reason=\"{reason}\"}}");
    crate::support::shows(&cluster, CreateBuyOrder, &series("token"), Some(1.0)).await?;
    crate::support::shows(&cluster, CreateBuyOrder, &series("no_scope"), Some(0.0)).await?;
    let output = cluster.output(CreateBuyOrder).join("\n");
    assert!(
        output.contains("request_not_authorized") && output.contains("it has expired"),
        "{output}"
    );
    let secret = expired.rsplit('.').next().unwrap_or_default();
    assert!(!output.contains(secret), "the token is in the log");
    Ok(())
}
