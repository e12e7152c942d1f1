//! The price simulator as a service, for compose: Coinbase's v2 prices API with fixed rates.

use std::process::ExitCode;

use cluster::Rates;
use common::endpoints::Listen;
use common::env::Env;
use common::http;
use common::money::Currency;
use common::readiness::Readiness;
use common::service::Lifecycle;
use utoipa::OpenApi;

struct Config {
    listen: Listen,
    rates: Rates,
}

fn configure(env: &mut Env) -> Config {
    let rates = Rates::default();
    for currency in Currency::ALL {
        let rate = env.string_or(&Rates::variable(currency), Rates::default_rate(currency));
        rates.set(currency.iso3(), &rate);
    }
    Config {
        listen: Listen::from_env(env),
        rates,
    }
}

async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let listener = http::bind(&config.listen).await?;
    let router = http::routes(config.rates.router(), ApiDoc::openapi(), Readiness::default());
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}

#[derive(OpenApi)]
#[openapi(info(
    title = "price_simulator",
    description = "Speaks Coinbase's v2 prices protocol, with fixed rates"
))]
struct ApiDoc;

fn main() -> ExitCode {
    common::service::run("price_simulator", configure, start)
}
