//! The page, and who may ask for it.

use cluster::Cluster;
use reqwest::header::{HOST, ORIGIN};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{alone, url};

#[tokio::test]
async fn every_file_of_the_page_is_served_and_confined() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/operations", "text/html; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
        ("/uPlot.min.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
        ("/licences.txt", "text/plain; charset=utf-8"),
    ] {
        let answer = cluster.http().get(url(&cluster, path)).send().await?;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let headers = answer.headers().clone();
        assert_eq!(headers["content-type"], kind, "{path}");
        assert_eq!(headers["cache-control"], "no-cache", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(
            headers["content-security-policy"],
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "{path}"
        );
        assert!(!answer.text().await?.is_empty(), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_site_gets_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    for path in [
        "/",
        "/events",
        "/buy_orders",
        "/metrics",
        "/healthcheck",
        "/openapi.json",
    ] {
        let rebound = cluster
            .http()
            .get(url(&cluster, path))
            .header(HOST, "evil.example:8779");
        let answer = rebound.send().await?;
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{path}");
        assert_eq!(
            answer.json::<Value>().await?,
            json!({"detail": "this host is not served here: ask for localhost"})
        );
    }
    for (method, path) in [(Method::PUT, "/buy_order"), (Method::POST, "/v1/traces")] {
        let foreign = cluster
            .http()
            .request(method, url(&cluster, path))
            .header(ORIGIN, "http://evil.example");
        assert_eq!(foreign.send().await?.status(), StatusCode::FORBIDDEN, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn spans_are_taken_in_their_form_only() -> anyhow::Result<()> {
    let cluster = Cluster::start(alone()).await?;
    for (kind, body, status) in [
        ("application/x-protobuf", Vec::new(), 200),
        ("application/x-protobuf", vec![0xff; 7], 400),
        ("application/x-protobuf", vec![0; 1024 * 1024 + 1], 413),
        ("application/json", b"{}".to_vec(), 415),
    ] {
        let sent = cluster
            .http()
            .post(url(&cluster, "/v1/traces"))
            .header("content-type", kind)
            .body(body);
        assert_eq!(sent.send().await?.status(), status);
    }
    Ok(())
}
