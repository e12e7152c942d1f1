//! What every service of HTTP answers besides its own work.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::System;

fn entries(system: &System) -> [(&str, &str, &str); 2] {
    [
        (&system.create_buy_order, "/buy_order", "put"),
        (&system.fetch_buy_orders, "/buy_orders", "get"),
    ]
}

pub(crate) async fn every_entry_answers_the_health_check(system: &System) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        let answer = system.get(&format!("{base}/healthcheck")).await?;
        ensure!(
            answer.status == 200 && answer.text == "null",
            "{base}: {answer:?}"
        );
    }
    Ok(())
}

pub(crate) async fn an_unknown_path_is_answered_404_and_a_wrong_method_405(
    system: &System,
) -> anyhow::Result<()> {
    for (base, path, _) in entries(system) {
        let unknown = system.get(&format!("{base}/no/such/path")).await?;
        ensure!(
            unknown.status == 404 && unknown.text == r#"{"detail":"Not Found"}"#,
            "{unknown:?}"
        );
        let wrong = system.send(system.http.delete(format!("{base}{path}"))).await?;
        ensure!(
            wrong.status == 405 && wrong.text == r#"{"detail":"Method Not Allowed"}"#,
            "{wrong:?}"
        );
        ensure!(wrong.header("allow").is_some(), "no Allow: {wrong:?}");
        ensure!(
            wrong.header("content-type") == Some("application/json"),
            "no JSON: {wrong:?}"
        );
    }
    Ok(())
}

pub(crate) async fn the_description_names_the_operation_and_its_answers(
    system: &System,
) -> anyhow::Result<()> {
    for (base, path, method) in entries(system) {
        let document = system.get(&format!("{base}/openapi.json")).await?.expect(200)?;
        let version = document["openapi"].as_str().context("no version")?;
        ensure!(version.starts_with("3.1"), "OpenAPI {version}");
        let answers = &document["paths"][path][method]["responses"];
        for status in ["200", "422", "503"] {
            ensure!(
                answers[status].is_object(),
                "{method} {path} does not describe {status}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn the_documentation_page_needs_nothing_from_elsewhere(
    system: &System,
) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        let mut url = reqwest::Url::parse(base)?.join("/docs")?;
        let mut response = system.http.get(url.clone()).send().await?;
        if let Some(location) = response.headers().get("location") {
            url = url.join(location.to_str()?)?;
            response = system.http.get(url.clone()).send().await?;
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
            let answer = system.http.get(asset.clone()).send().await?;
            ensure!(answer.status().is_success(), "{asset}: {}", answer.status());
        }
    }
    Ok(())
}

/// The body; the page is kept compressed in the binary.
async fn text(response: reqwest::Response) -> anyhow::Result<String> {
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
