//! Where `btc_price` is to ask: decided by `btc_price` itself, the only one who can tell whether it reaches Coinbase.

use std::time::Duration;

use anyhow::Context as _;

use super::Prices;
use super::contract::Contract;
use super::parts::environment;
use crate::cluster::Replica;
use crate::prices::{PriceSimulator, Rates};
use crate::service::Service;

/// How long a first price may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts a simulator and points `contract` to it, unless Coinbase was chosen, or nothing was and Coinbase answers.
pub(crate) async fn choose(
    choice: Prices,
    contract: &mut Contract,
    btc_price: &Replica,
    client: &reqwest::Client,
) -> anyhow::Result<Option<PriceSimulator>> {
    match choice {
        Prices::Coinbase => return Ok(None),
        Prices::Auto if reaches_coinbase(contract, btc_price, client).await? => return Ok(None),
        Prices::Auto => println!(
            "\n  *** {} cannot be reached from here: prices come from the SIMULATOR, at fixed rates. ***\n  \
             *** (--prices coinbase insists on Coinbase, --prices simulator does away with this warning) ***\n",
            contract.get("CB_HOST")?
        ),
        Prices::Simulator => println!("  prices come from the simulator, at fixed rates"),
    }
    let simulator = PriceSimulator::start()?;
    for (currency, default) in Rates::DEFAULTS {
        let rate = contract
            .get(&format!("SIMULATOR_RATE_{currency}"))
            .unwrap_or(default);
        simulator.set_rate(currency, rate);
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
    btc_price.start(environment(Service::BtcPrice, contract, btc_price.port()))?;
    btc_price.healthy(client).await?;
    let request = client
        .get(btc_price.url() + "/buy?currency=USD")
        .timeout(PATIENCE);
    let reached = request
        .send()
        .await
        .is_ok_and(|answer| answer.status().is_success());
    // Started again with the others.
    btc_price
        .process()?
        .stop()
        .await
        .context("btc_price did not stop")?;
    Ok(reached)
}
