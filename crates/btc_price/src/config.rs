//! The configuration, read from the environment.

use std::path::PathBuf;
use std::time::Duration;

use common::endpoints::{Listen, Peer};
use common::env::Env;

use crate::coinbase::Endpoint;
use crate::deviation::MaxDeviation;

/// The configuration of this service.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on.
    pub(crate) listen: Listen,
    /// The price provider: `CB_…`.
    pub(crate) coinbase: Endpoint,
    /// `CB_TIMEOUT_S`: timeout of a whole request for a price, default 5 s.
    pub(crate) coinbase_timeout: Duration,
    /// `QUOTE_MAX_AGE_S`: the age from which a quote is no longer reused, default 2 s.
    pub(crate) quote_max_age: Duration,
    /// `QUOTE_MAX_DEVIATION`: how far a price may be from the last good one. `None` when it is not set: any price is good.
    pub(crate) quote_max_deviation: Option<MaxDeviation>,
    /// `QUOTE_DEVIATION_HOLD_S`: a price beyond that bound is believed when it was repeated for this long, default 300 s.
    pub(crate) quote_deviation_hold: Duration,
    /// `EXTRA_CA_FILE`: PEM file of certificate authorities to trust besides the public ones.
    pub(crate) extra_ca: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration; faults are collected in `env`.
    pub fn from_env(env: &mut Env) -> Self {
        Self {
            listen: Listen::from_env(env),
            coinbase: Endpoint::new(Peer::from_env(env, "CB"), env),
            coinbase_timeout: env.seconds_or("CB_TIMEOUT_S", Duration::from_secs(5)),
            quote_max_age: env.seconds_or("QUOTE_MAX_AGE_S", Duration::from_secs(2)),
            quote_max_deviation: max_deviation(env),
            quote_deviation_hold: env.seconds_or("QUOTE_DEVIATION_HOLD_S", Duration::from_secs(300)),
            extra_ca: env.optional("EXTRA_CA_FILE").map(PathBuf::from),
        }
    }
}

fn max_deviation(env: &mut Env) -> Option<MaxDeviation> {
    const NAME: &str = "QUOTE_MAX_DEVIATION";
    let text = env.optional(NAME)?;
    let reason =
        "is not a decimal above 0 and below 1 with at most 8 decimals (0.5 is 50 %; empty for no bound)";
    text.parse().map_err(|_| env.malformed(NAME, &text, reason)).ok()
}

#[cfg(test)]
mod tests {
    use common::env::ConfigFaults;
    use common::money::Currency;

    use super::*;

    const MINIMAL: [(&str, &str); 5] = [
        ("SERVICE_HOST", "127.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("CB_HOST", "api.coinbase.com"),
        ("CB_PORT", "443"),
        ("CB_PATH", "/v2/prices"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
        let mut env = Env::from_pairs(MINIMAL.iter().chain(changes).copied());
        let config = Config::from_env(&mut env);
        env.finish(config)
    }

    #[test]
    fn what_is_not_set_has_the_documented_defaults() -> anyhow::Result<()> {
        let config = read(&[])?;
        assert_eq!(
            config.coinbase.url(Currency::Usd),
            "https://api.coinbase.com:443/v2/prices/buy?currency=USD"
        );
        assert_eq!(config.coinbase_timeout, Duration::from_secs(5));
        assert_eq!(config.quote_max_age, Duration::from_secs(2));
        assert_eq!(config.quote_max_deviation, None);
        assert_eq!(config.quote_deviation_hold, Duration::from_secs(300));
        assert_eq!(config.extra_ca, None);
        Ok(())
    }

    #[test]
    fn a_bound_on_deviations_that_bounds_nothing_or_everything_is_refused_by_name() -> anyhow::Result<()> {
        for value in ["0", "-0.5", "1", "1e-1", "50%", "0.000000001"] {
            let refused = read(&[("QUOTE_MAX_DEVIATION", value)])
                .is_err_and(|faults| faults.to_string().contains("QUOTE_MAX_DEVIATION is malformed"));
            assert!(refused, "{value}");
        }
        let config = read(&[("QUOTE_MAX_DEVIATION", "0.5")])?;
        assert_eq!(config.quote_max_deviation, "0.5".parse().ok());
        assert_eq!(read(&[("QUOTE_MAX_DEVIATION", "")])?.quote_max_deviation, None);
        Ok(())
    }

    #[test]
    fn an_endpoint_that_is_no_url_of_that_host_and_path_is_refused_by_name() {
        for (name, value) in [
            ("CB_PATH", "v2/prices"),
            ("CB_PATH", "/v2?x="),
            ("CB_PATH", "/v2#x"),
            ("CB_HOST", "elsewhere.test/@coinbase.com"),
            ("CB_HOST", "user@coinbase.com"),
            ("CB_HOST", "coinbase com"),
            ("CB_HOST", "fe80::1%eth0"),
            ("CB_PROTOCOL", "ftp"),
        ] {
            let refused = read(&[(name, value)]).is_err_and(|faults| faults.to_string().contains(name));
            assert!(refused, "{name}={value}");
        }
    }
}
