//! How the service stops.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use cluster::{Behaviour, Service, wait_until};
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};

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

#[tokio::test]
async fn a_request_that_waits_for_a_provider_that_hangs_is_answered_503_when_the_service_stops()
-> anyhow::Result<()> {
    let service = Arc::new(BtcPrice::start(&[("CB_TIMEOUT_S", "30")]).await?);
    service.prices().answer_with(Behaviour::Hang);
    let asking = Arc::clone(&service);
    let request = tokio::spawn(async move { asking.buy("USD").await });
    wait_until("the request in flight", LIMIT, async || {
        Ok(service.prices().requests() == 1)
    })
    .await?;

    let asked = Instant::now();
    let exit = service.cluster().stop(Service::BtcPrice).await?;
    assert_eq!(exit.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let answer = request.await??;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.retry_after.is_some(), "{answer:?}");
    let failed = service.events("request_failed");
    assert_eq!(failed.first().context("no event")?["request"], "GET /buy");
    Ok(())
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() -> anyhow::Result<()> {
    // Each request is logged in about 100 bytes, and a pipe holds 64 KiB.
    const REQUESTS: usize = 3_000;
    let service = BtcPrice::start(&[]).await?;
    let environment = service.cluster().environment(Service::BtcPrice)?;
    assert_eq!(service.cluster().stop(Service::BtcPrice).await?.code(), Some(0));
    let mut unread = Command::new(env!("CARGO_BIN_EXE_btc_price"))
        .env_clear()
        .envs(environment)
        .stdout(Stdio::piped())
        .spawn()?;
    wait_until("the service is healthy", LIMIT, async || {
        Ok(service.get("/healthcheck").await?.status == StatusCode::OK)
    })
    .await?;
    for _ in 0..REQUESTS {
        assert_eq!(service.get("/healthcheck").await?.status, StatusCode::OK);
    }

    let pid = i32::try_from(unread.id())?;
    let asked = Instant::now();
    kill_process(Pid::from_raw(pid).context("no process id")?, Signal::TERM)?;
    wait_until("the service has ended", LIMIT, async || {
        Ok(unread.try_wait()?.is_some())
    })
    .await?;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(unread.wait()?.code(), Some(0));
    Ok(())
}
