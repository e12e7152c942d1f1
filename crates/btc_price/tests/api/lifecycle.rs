//! How the service ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluster::{Behaviour, Service, wait_until};
use reqwest::StatusCode;

use crate::service::{BtcPrice, LIMIT};

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_service_stops() -> anyhow::Result<()> {
    let service = Arc::new(BtcPrice::start(&[]).await?);
    service
        .prices()
        .answer_with(Behaviour::Delay(Duration::from_secs(1)));
    let asking = Arc::clone(&service);
    let request = tokio::spawn(async move { asking.buy("USD").await });
    wait_until("the request in flight", LIMIT, async || {
        Ok(service.prices().requests() == 1)
    })
    .await?;

    let exit = service.cluster().stop(Service::BtcPrice).await?;
    assert_eq!(exit.code(), Some(0));
    assert_eq!(request.await??.status, StatusCode::OK);
    let ended = service.events("service_shut_down");
    assert_eq!(ended.first().context("no event")?["exit_code"], 0);
    Ok(())
}
