//! What every service of HTTP answers besides its own work.

use anyhow::{Context as _, ensure};
use cluster::docs_page_needs_no_network;

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

pub(crate) async fn the_descriptions_name_the_position_of_an_order(system: &System) -> anyhow::Result<()> {
    let description = async |base: &str| system.get(&format!("{base}/openapi.json")).await?.expect(200);
    let put = description(&system.create_buy_order).await?["paths"]["/buy_order"]["put"].take();
    let header = &put["responses"]["200"]["headers"]["Order-Position"];
    ensure!(header["schema"]["format"] == "uuid", "another answer: {put}");
    let get = description(&system.fetch_buy_orders).await?["paths"]["/buy_orders"]["get"].take();
    let parameters = get["parameters"].as_array().context("no parameters")?;
    let is_position = |parameter: &&serde_json::Value| {
        parameter["name"] == "Order-Position" && parameter["in"] == "header" && parameter["required"] == false
    };
    ensure!(
        parameters.iter().filter(is_position).count() == 1,
        "another parameter: {get}"
    );
    ensure!(parameters.len() == 3, "more is described than is read: {get}");
    Ok(())
}

pub(crate) async fn the_documentation_page_is_confined_to_its_own_site(
    system: &System,
) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        for path in ["docs", "docs/", "docs/swagger-initializer.js", "openapi.json"] {
            let answer = system.get(&format!("{base}/{path}")).await?;
            let policy = answer.header("content-security-policy").unwrap_or_default();
            ensure!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path}: {answer:?}"
            );
            ensure!(!policy.contains("unsafe"), "{policy}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
            ] {
                ensure!(answer.header(name) == Some(value), "{path}, {name}: {answer:?}");
            }
        }
    }
    Ok(())
}

pub(crate) async fn the_documentation_page_needs_nothing_from_elsewhere(
    system: &System,
) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        docs_page_needs_no_network(&system.http, base).await?;
    }
    Ok(())
}

pub(crate) async fn errors_below_the_documentation_page_are_json_too(system: &System) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        for (path, status, detail) in [
            ("/docs/no-such-page", 404, "Not Found"),
            ("/docs/%FF", 400, "Bad Request"),
        ] {
            let refused = system.get(&format!("{base}{path}")).await?;
            let expected = format!(r#"{{"detail":"{detail}"}}"#);
            ensure!(
                (refused.status, refused.text.as_str()) == (status, &expected)
                    && refused.header("content-type") == Some("application/json"),
                "{path}: {refused:?}"
            );
        }
    }
    Ok(())
}

pub(crate) async fn the_documentation_page_comes_in_an_encoding_that_its_client_takes(
    system: &System,
) -> anyhow::Result<()> {
    for (base, _, _) in entries(system) {
        for (accepted, status, encoding) in [
            (None, 200, None),
            (Some("identity"), 200, None),
            (Some("gzip;q=0, identity"), 200, None),
            (Some("gzip, deflate, br, zstd"), 200, Some("gzip")),
            (Some("gzip;q=0, identity;q=0"), 406, None),
        ] {
            let mut request = system.http.get(format!("{base}/docs/swagger-ui.css"));
            if let Some(accepted) = accepted {
                request = request.header("accept-encoding", accepted);
            }
            let response = request.send().await?;
            ensure!(response.status() == status, "{accepted:?}: {response:?}");
            let header = |name: &str| {
                let value = response.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            ensure!(
                header("content-encoding").as_deref() == encoding,
                "{accepted:?}: {response:?}"
            );
            if status == 200 {
                ensure!(
                    header("vary").as_deref() == Some("accept-encoding"),
                    "{response:?}"
                );
            }
            let body = response.bytes().await?;
            let is_gzip = body.starts_with(b"\x1f\x8b");
            ensure!(
                is_gzip == encoding.is_some(),
                "{accepted:?}: {} bytes",
                body.len()
            );
        }
    }
    Ok(())
}
