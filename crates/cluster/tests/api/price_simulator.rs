//! The simulator as a program, as compose runs it.

use std::process::{Command, Stdio};
use std::time::Duration;

use cluster::{PortLease, http_client, wait_until};
use common::money::Currency;
use serde_json::Value;

#[tokio::test]
async fn it_quotes_its_fixed_rates_or_those_of_its_environment_and_ends_on_sigterm() -> anyhow::Result<()> {
    let lease = PortLease::take()?;
    let mut simulator = Command::new(env!("CARGO_BIN_EXE_price_simulator"))
        .env_clear()
        .env("SERVICE_HOST", "127.0.0.1")
        .env("SERVICE_PORT", lease.port().to_string())
        .env("SIMULATOR_RATE_GBP", "1.5")
        .stdout(Stdio::null())
        .spawn()?;
    let client = http_client()?;
    let url = format!("http://127.0.0.1:{}", lease.port());
    let outcome = async {
        wait_until("it is healthy", Duration::from_secs(20), async || {
            Ok(client
                .get(format!("{url}/healthcheck"))
                .send()
                .await?
                .status()
                .is_success())
        })
        .await?;
        for currency in Currency::ALL {
            let rate = match currency {
                Currency::Usd => "48478.88",
                Currency::Eur => "41191.91",
                Currency::Gbp => "1.5",
            };
            let request = client.get(format!("{url}/v2/prices/buy?currency={currency}"));
            let price: Value = request.send().await?.json().await?;
            assert_eq!(price["data"]["amount"], rate);
            assert_eq!(price["data"]["currency"], currency.iso3());
        }
        let unknown = client.get(format!("{url}/v2/prices/buy?currency=JPY"));
        let unknown = unknown.send().await?;
        assert_eq!(unknown.status(), 400);
        let refusal: Value = unknown.json().await?;
        assert_eq!(refusal["errors"][0]["message"], "Currency is invalid");
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    crate::servers::terminate(simulator.id());
    assert!(simulator.wait()?.success());
    outcome
}
