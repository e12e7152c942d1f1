//! The routes that every service has.

use std::collections::BTreeSet;

use cluster::Service;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{cluster, get, insert};

#[tokio::test]
async fn the_health_check_is_null() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let answer = get(&cluster, "/healthcheck").await?;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, Value::Null));
    Ok(())
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    for path in ["/", "/buy_order", "/buy_orders/", "/buy_orders/7"] {
        let answer = get(&cluster, path).await?;
        assert_eq!(
            (answer.status, answer.body),
            (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
            "{path}"
        );
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let url = cluster.url(Service::FetchBuyOrders) + "/buy_orders";
        let response = cluster.http().request(method.clone(), url).send().await?;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        let allow = response
            .headers()
            .get("allow")
            .and_then(|allow| allow.to_str().ok())
            .unwrap_or_default();
        assert!(
            allow.split(',').any(|allowed| allowed.trim() == "GET"),
            "{method}: allow is {allow:?}"
        );
        assert_eq!(
            response.json::<Value>().await?,
            json!({"detail": "Method Not Allowed"}),
            "{method}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_document_names_every_status_and_its_example_works_when_tried() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=20).await?;
    let document = get(&cluster, "/openapi.json").await?.body;
    assert!(
        document
            .get("openapi")
            .and_then(Value::as_str)
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let operation = document.pointer("/paths/~1buy_orders/get").unwrap();
    let statuses: BTreeSet<&str> = operation
        .get("responses")
        .and_then(Value::as_object)
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        statuses,
        BTreeSet::from(["200", "404", "405", "422", "500", "503"])
    );

    let parameters = operation.get("parameters").and_then(Value::as_array).unwrap();
    let names: Vec<&str> = parameters
        .iter()
        .filter_map(|parameter| parameter.get("name")?.as_str())
        .collect();
    assert_eq!(names, ["last_reference", "page_size"]);
    assert!(
        parameters
            .iter()
            .all(|parameter| parameter.get("required") == Some(&json!(false))),
        "{parameters:?}"
    );
    let examples = parameters.iter().filter_map(|parameter| {
        let example = parameter
            .get("example")
            .or_else(|| parameter.pointer("/schema/example"))?;
        Some(format!("{}={}", parameter.get("name")?.as_str()?, example))
    });
    let tried = get(
        &cluster,
        &format!("/buy_orders?{}", examples.collect::<Vec<_>>().join("&")),
    )
    .await?;
    assert_eq!(tried.status, StatusCode::OK, "{tried:?}");
    assert_eq!(tried.ids().len(), 10);
    Ok(())
}

#[tokio::test]
async fn the_document_describes_a_page_as_it_is_answered() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1).await?;
    let document = get(&cluster, "/openapi.json").await?.body;
    let page = get(&cluster, "/buy_orders").await?.body;
    let described = |schema: &str, part: &str| -> BTreeSet<String> {
        let schema = document
            .pointer(&format!("/components/schemas/{schema}"))
            .unwrap();
        match schema.get(part).unwrap() {
            Value::Object(properties) => properties.keys().cloned().collect(),
            required => required
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
        }
    };
    let answered =
        |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    for (schema, value) in [("Page", &page), ("BuyOrder", page.pointer("/rows/0").unwrap())] {
        assert_eq!(described(schema, "properties"), answered(value), "{schema}");
        assert_eq!(described(schema, "required"), answered(value), "{schema}");
    }
    Ok(())
}
