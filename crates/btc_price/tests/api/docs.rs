//! The OpenAPI document of the service.

use anyhow::Context;
use reqwest::{Method, StatusCode};

use crate::service::BtcPrice;

#[tokio::test]
async fn the_openapi_document_describes_every_answer_with_an_example_that_works() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    let document = service.get("/openapi.json").await?.body;
    assert_eq!(document["openapi"], "3.1.0");

    let operation = &document["paths"]["/buy"]["get"];
    let statuses: Vec<_> = operation["responses"]
        .as_object()
        .context("no responses")?
        .keys()
        .collect();
    assert_eq!(statuses, ["200", "400", "405", "422", "500", "503"]);
    assert!(operation["responses"]["503"]["headers"]["Retry-After"].is_object());
    for schema in ["Quote", "Detail", "FieldFaults"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }

    let parameter = &operation["parameters"][0];
    assert_eq!(
        (&parameter["name"], &parameter["required"]),
        (&"currency".into(), &true.into())
    );
    let example = parameter["example"].as_str().context("no example")?;
    let quote = service.buy(example).await?;
    assert_eq!(quote.status, StatusCode::OK);
    for field in quote.body.as_object().context("no object")?.keys() {
        assert!(
            document["components"]["schemas"]["Quote"]["properties"][field].is_object(),
            "{field}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_documented_errors_are_the_real_ones() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    let document = service.get("/openapi.json").await?.body;
    let documented = |status: &str| {
        document["paths"]["/buy"]["get"]["responses"][status]["content"]["application/json"]["example"]
            .clone()
    };
    assert_eq!(service.buy("JPY").await?.body, documented("400"));
    let wrong_method = service.request(Method::DELETE, "/buy");
    assert_eq!(
        crate::service::answer(wrong_method).await?.body,
        documented("405")
    );
    service.prices().answer_with(cluster::Behaviour::Status(500));
    assert_eq!(service.buy("USD").await?.body, documented("503"));
    Ok(())
}

#[tokio::test]
async fn the_docs_page_needs_no_network() -> anyhow::Result<()> {
    let service = BtcPrice::start(&[]).await?;
    let cluster = service.cluster();
    cluster::docs_page_needs_no_network(&cluster.http(), &cluster.url(cluster::Service::BtcPrice)).await
}
