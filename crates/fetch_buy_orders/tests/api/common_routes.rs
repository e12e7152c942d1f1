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
        let allow = response.headers()["allow"].to_str()?;
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

/// The keys of an object, or the texts of an array.
fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Object(fields) => fields.keys().map(String::as_str).collect(),
        value => value
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect(),
    }
}

#[tokio::test]
async fn the_document_names_every_status_and_its_example_works_when_tried() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=20).await?;
    let document = get(&cluster, "/openapi.json").await?.body;
    let version = document["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1"), "{version}");
    let operation = &document["paths"]["/buy_orders"]["get"];
    assert_eq!(
        names(&operation["responses"]),
        BTreeSet::from(["200", "404", "405", "422", "500", "503"])
    );

    let parameters = operation["parameters"].as_array().unwrap();
    let parameter_names: Vec<&Value> = parameters.iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(parameter_names, ["last_reference", "page_size", "Order-Position"]);
    let is_optional = |parameter: &Value| parameter["required"] == json!(false);
    assert!(parameters.iter().all(is_optional), "{parameters:?}");
    let examples = parameters.iter().filter_map(|parameter| {
        let example = parameter
            .get("example")
            .or_else(|| parameter.pointer("/schema/example"))?;
        Some(format!("{}={}", parameter["name"].as_str()?, example))
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
    for (schema, value) in [("Page", &page), ("BuyOrder", &page["rows"][0])] {
        let described = &document["components"]["schemas"][schema];
        for part in ["properties", "required"] {
            assert_eq!(names(&described[part]), names(value), "{schema}: {part}");
        }
    }
    Ok(())
}
