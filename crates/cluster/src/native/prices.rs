//! Chooses the source of prices. `btc_price` itself is asked whether it reaches Coinbase, as only it can tell.

use std::time::Duration;

use anyhow::Context as _;
use common::money::Currency;

use super::arguments::PriceSource;
use super::contract::Contract;
use crate::prices::{PriceSimulator, Rates};
use crate::replica::Replica;
use crate::service::Service;

/// How long the first price may take.
const FIRST_PRICE_LIMIT: Duration = Duration::from_secs(3);

/// Starts a simulator and points `contract` to it, unless Coinbase was chosen, or `Auto` was chosen and Coinbase can be reached.
pub(crate) async fn choose(
    price_source: PriceSource,
    contract: &mut Contract,
    btc_price: &Replica,
    client: &reqwest::Client,
) -> anyhow::Result<Option<PriceSimulator>> {
    match price_source {
        PriceSource::Coinbase => return Ok(None),
        PriceSource::Auto if reaches_coinbase(contract, btc_price, client).await? => return Ok(None),
        PriceSource::Auto => say!(
            "\n  *** {} cannot be reached from here: prices come from the SIMULATOR, at fixed rates. ***\n  \
             *** (--prices coinbase requires Coinbase, --prices simulator avoids this warning) ***\n",
            contract.get("CB_HOST")?
        ),
        PriceSource::Simulator => say!("  prices come from the simulator, at fixed rates"),
    }
    let simulator = PriceSimulator::start()?;
    for currency in Currency::ALL {
        if let Ok(rate) = contract.get(&Rates::variable(currency)) {
            simulator.set_rate(currency.iso3(), rate);
        }
    }
    contract.set("CB_PROTOCOL", "http");
    contract.set("CB_HOST", "127.0.0.1");
    contract.set("CB_PORT", simulator.port().to_string());
    Ok(Some(simulator))
}

async fn reaches_coinbase(
    contract: &Contract,
    btc_price: &Replica,
    client: &reqwest::Client,
) -> anyhow::Result<bool> {
    let mut environment = contract.environment(Service::BtcPrice, btc_price.port());
    // Nobody else asks it yet, and this client trusts no certificate.
    environment.retain(|name, _| !name.starts_with("SERVICE_TLS_"));
    btc_price.start(environment)?;
    btc_price.wait_until_healthy(client).await?;
    let request = client
        .get(btc_price.url() + "/buy?currency=USD")
        .timeout(FIRST_PRICE_LIMIT);
    let reached = request
        .send()
        .await
        .is_ok_and(|answer| answer.status().is_success());
    // It is started again with the other services.
    btc_price
        .process()?
        .stop()
        .await
        .context("btc_price did not stop")?;
    Ok(reached)
}
