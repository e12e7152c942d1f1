//! Whether a documentation page works without a network.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use reqwest::{Client, Response, Url};

/// Loads the page at `/docs` of a service, and all that it names, as a browser would.
///
/// # Errors
/// When the page, or one of its scripts and styles, comes from elsewhere or is not there, or when its set-up names another host.
pub async fn docs_page_needs_no_network(http: &Client, base: &str) -> anyhow::Result<()> {
    let mut url = Url::parse(base)?.join("/docs")?;
    let mut response = http.get(url.clone()).send().await?;
    if let Some(location) = response.headers().get("location") {
        url = url.join(location.to_str()?)?;
        response = http.get(url.clone()).send().await?;
    }
    ensure!(response.status() == 200, "{url}: {response:?}");
    let page = text(response).await?;
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
            "{asset} comes from elsewhere"
        );
        let answer = http.get(asset.clone()).send().await?;
        ensure!(answer.status().is_success(), "{asset}: {}", answer.status());
        if asset.path().ends_with("initializer.js") {
            let set_up = text(answer).await?;
            ensure!(set_up.contains("\"/openapi.json\""), "{asset}: {set_up}");
            ensure!(set_up.contains("\"validatorUrl\": \"none\""), "{asset}: {set_up}");
            ensure!(!set_up.contains("://"), "{asset} names another host: {set_up}");
        }
    }
    Ok(())
}

/// The body; the page is kept compressed in the binary.
async fn text(response: Response) -> anyhow::Result<String> {
    let is_compressed = response
        .headers()
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip");
    let body = response.bytes().await?;
    if !is_compressed {
        return Ok(String::from_utf8(body.into())?);
    }
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not run gzip")?;
    // Dropped at the end of the statement, which is the end of its input.
    gzip.stdin.take().context("no input")?.write_all(&body)?;
    let output = gzip.wait_with_output()?;
    ensure!(output.status.success(), "gzip: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
