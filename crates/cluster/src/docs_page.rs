//! Checks that a documentation page works without a network.

use anyhow::ensure;
use reqwest::{Client, Url};

/// Loads the page at `/docs` of a service and everything that it refers to, as a browser would.
///
/// # Errors
/// When the page, or one of its scripts and styles, is missing or on another host, or when its set-up names another host.
pub async fn docs_page_needs_no_network(http: &Client, base: &str) -> anyhow::Result<()> {
    let mut url = Url::parse(base)?.join("/docs")?;
    let mut response = http.get(url.clone()).send().await?;
    if let Some(location) = response.headers().get("location") {
        url = url.join(location.to_str()?)?;
        response = http.get(url.clone()).send().await?;
    }
    ensure!(response.status() == 200, "{url}: {response:?}");
    let page = response.text().await?;
    let assets: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    ensure!(!assets.is_empty(), "a page without scripts and styles: {page}");
    for asset in assets {
        let asset = url.join(asset)?;
        ensure!(
            asset.host() == url.host() && asset.port() == url.port(),
            "{asset} is on another host"
        );
        let answer = http.get(asset.clone()).send().await?;
        ensure!(answer.status().is_success(), "{asset}: {}", answer.status());
        if asset.path().ends_with("initializer.js") {
            let set_up = answer.text().await?;
            ensure!(set_up.contains("\"../openapi.json\""), "{asset}: {set_up}");
            ensure!(set_up.contains("\"validatorUrl\": \"none\""), "{asset}: {set_up}");
            ensure!(!set_up.contains("://"), "{asset} names another host: {set_up}");
        }
    }
    Ok(())
}
