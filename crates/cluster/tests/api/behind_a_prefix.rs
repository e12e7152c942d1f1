//! Services behind a proxy that maps a prefix to each service and strips it, as gateways do: with HAProxy and a real browser.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{Cluster, Options, PortLease, Service, wait_until};
use reqwest::Url;
use serde_json::Value;

use crate::browser::{Browser, Helper};

const LIMIT: Duration = Duration::from_secs(60);

/// The services at `/shop/create/` and `/shop/fetch/`.
struct Shop {
    create: String,
    fetch: String,
    _folder: tempfile::TempDir,
    _proxy: Helper,
}

impl Shop {
    async fn open(cluster: &Cluster) -> anyhow::Result<Self> {
        let port = PortLease::take()?.port();
        let backend = |name: &str, service| {
            let address = cluster.url(service).replace("http://", "");
            format!(
                "backend {name}\n    http-request replace-path /shop/{name}/(.*) /\\1\n    server one {address}\n"
            )
        };
        let configuration = format!(
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             frontend shop\n    bind 127.0.0.1:{port}\n    use_backend create if {{ path_beg /shop/create/ }}\n    use_backend fetch if {{ path_beg /shop/fetch/ }}\n\
             {}{}",
            backend("create", Service::CreateBuyOrder),
            backend("fetch", Service::FetchBuyOrders)
        );
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, configuration)?;
        let file = file.to_str().context("the name of the folder")?.to_owned();
        let proxy = Helper::start("haproxy", &["-db".to_owned(), "-f".to_owned(), file], "haproxy")?;
        let shop = Self {
            create: format!("http://127.0.0.1:{port}/shop/create/"),
            fetch: format!("http://127.0.0.1:{port}/shop/fetch/"),
            _folder: folder,
            _proxy: proxy,
        };
        wait_until("the proxy is there", LIMIT, async || {
            let asked = cluster
                .http()
                .get(format!("{}healthcheck", shop.fetch))
                .send()
                .await;
            Ok(asked.is_ok_and(|answer| answer.status() == 200))
        })
        .await?;
        Ok(shop)
    }
}

/// Opens the documentation page of a service, tries its operation with the proposed values, and returns the shown answer.
async fn try_out(browser: &Browser, service: &str) -> anyhow::Result<(String, String)> {
    browser.open(&format!("{service}docs")).await?;
    for selector in [
        "[id*='buy_order'] .opblock-summary-control",
        ".try-out__btn",
        ".execute",
    ] {
        browser.click(selector).await?;
    }
    let status = browser
        .text(".live-responses-table .response .response-col_status")
        .await?;
    let body = browser.text(".live-responses-table .response pre").await?;
    Ok((status, body))
}

#[tokio::test]
async fn an_order_is_placed_and_seen_by_trying_the_pages_out_behind_a_prefix() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let shop = Shop::open(&cluster).await?;
    let browser = Browser::start().await?;

    let (status, answer) = try_out(&browser, &shop.create).await?;
    ensure!(status.starts_with("200"), "{status}: {answer}");
    let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
    let id = answer["buy_order"]["id"].as_str().context("no order")?.to_owned();
    wait_until("the order is projected", LIMIT, async || {
        let projected: i64 = sqlx::query_scalar("SELECT count(*) FROM buy_order_read_model")
            .fetch_one(cluster.read_model())
            .await?;
        Ok(projected == 1)
    })
    .await?;
    let (status, page) = try_out(&browser, &shop.fetch).await?;
    ensure!(
        status.starts_with("200") && page.contains(&id),
        "{status}: {page}"
    );
    Ok(())
}

#[tokio::test]
async fn references_in_answers_stay_within_the_prefix() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let shop = Shop::open(&cluster).await?;
    let http = cluster.http();
    for _ in 0..2 {
        let order = cluster::new_order("USD", "1");
        let placed = http.put(format!("{}buy_order", shop.create)).json(&order).send();
        placed.await?.error_for_status()?;
    }
    let first = Url::parse(&format!("{}buy_orders?page_size=1", shop.fetch))?;
    let mut next = None;
    wait_until("there is a second page", LIMIT, async || {
        let answer = http.get(first.clone()).send().await?;
        let link = answer.headers().get("link").and_then(|link| link.to_str().ok());
        next = link.and_then(|link| {
            link.strip_prefix('<')?
                .split_once(">; rel=\"next\"")
                .map(|(url, _)| url.to_owned())
        });
        let oldest = answer.json::<Value>().await?;
        Ok(next.is_some() && oldest["rows"].as_array().is_some_and(|rows| rows.len() == 1))
    })
    .await?;
    let next = first.join(&next.context("no link")?)?;
    ensure!(next.path() == "/shop/fetch/buy_orders", "{next}");
    ensure!(http.get(next).send().await?.status() == 200);

    for service in [&shop.create, &shop.fetch] {
        let docs = Url::parse(&format!("{service}docs"))?;
        let answer = http.get(docs.clone()).send().await?;
        let location = answer
            .headers()
            .get("location")
            .context("no redirect")?
            .to_str()?;
        ensure!(
            docs.join(location)?.as_str() == format!("{service}docs/"),
            "{location}"
        );
        let address = Url::parse(&format!("{service}openapi.json"))?;
        let document: Value = http
            .get(address.clone())
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let server = document["servers"][0]["url"].as_str().context("no server")?;
        ensure!(address.join(server)?.as_str() == service.as_str(), "{server}");
    }
    Ok(())
}
