//! How small and how large orders may be, and how much of the book one client may have.

use std::time::Duration;

use anyhow::Context as _;
use common::database::{Pool, is_transient, with_connection};
use common::env::Env;
use common::money::BtcAmount;
use common::retry::Backoff;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::error::ApiError;
use crate::order::CAP;

/// Bounds on the BTC of an order and of a client's orders together, all included. `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OrderLimits {
    min: Option<BtcAmount>,
    max: Option<BtcAmount>,
    /// Of all orders of a client that are in the book. The write model checks it: see [`crate::db::accept_orders`].
    pub(crate) per_client: Option<BtcAmount>,
}

impl OrderLimits {
    /// Reads `ORDER_MIN_BTC`, `ORDER_MAX_BTC` and `ORDER_MAX_BTC_PER_CLIENT`; faults are collected in `env`.
    pub(crate) fn from_env(env: &mut Env) -> Self {
        let limits = Self {
            min: limit(env, "ORDER_MIN_BTC"),
            max: limit(env, "ORDER_MAX_BTC"),
            per_client: limit(env, "ORDER_MAX_BTC_PER_CLIENT"),
        };
        if let (Some(min), Some(max)) = (limits.min, limits.max)
            && min > max
        {
            env.fault(format!("ORDER_MIN_BTC, {min}, is above ORDER_MAX_BTC, {max}"));
        }
        if let (Some(min), Some(max)) = (limits.min, limits.per_client)
            && min > max
        {
            env.fault(format!(
                "ORDER_MIN_BTC, {min}, is above ORDER_MAX_BTC_PER_CLIENT, {max}"
            ));
        }
        limits
    }

    /// Warns of each bound that is not set.
    pub(crate) fn report_absent(self) {
        for (limit, variable, info) in [
            (self.min, "ORDER_MIN_BTC", "orders may be as small as 1 satoshi"),
            (self.max, "ORDER_MAX_BTC", "one order may fill the whole book"),
            (
                self.per_client,
                "ORDER_MAX_BTC_PER_CLIENT",
                "one client may fill the whole book",
            ),
        ] {
            if limit.is_none() {
                tracing::warn!(event = "orders_not_limited", variable, info);
            }
        }
    }

    /// Checks the BTC of a new order.
    ///
    /// # Errors
    /// [`ApiError::TooSmall`] or [`ApiError::TooLarge`].
    pub(crate) fn check(self, btc: BtcAmount) -> Result<(), ApiError> {
        match (self.min, self.max) {
            (Some(min), _) if btc < min => Err(ApiError::TooSmall { btc, min }),
            (_, Some(max)) if btc > max => Err(ApiError::TooLarge { btc, max }),
            _ => Ok(()),
        }
    }
}

/// Counts the orders of clients that were accepted while there was no limit, step by step, however many they are. Returns `false` when the
/// process was asked to stop meanwhile.
///
/// # Errors
/// When the write model refuses. While it is away, this waits.
pub(crate) async fn count_orders(pool: &Pool, stopping: &CancellationToken) -> anyhow::Result<bool> {
    let mut backoff = Backoff::starting_at(Duration::from_secs(1));
    while !stopping.is_cancelled() {
        match with_connection(pool, db::count_orders_of_clients).await {
            Ok(true) => return Ok(true),
            Ok(false) => backoff.reset(),
            Err(error) if is_transient(&error) => {
                tracing::warn!(event = "orders_of_clients_not_counted", info = %error);
                backoff.pause(stopping).await;
            }
            Err(error) => return Err(error).context("the orders of clients cannot be counted"),
        }
    }
    Ok(false)
}

fn limit(env: &mut Env, name: &str) -> Option<BtcAmount> {
    let text = env.optional(name)?;
    match text.parse::<BtcAmount>() {
        Ok(btc) if btc.decimal() <= CAP => Some(btc),
        _ => {
            let reason = format!(
                "is not an amount of BTC above 0 and up to the cap of {CAP}, with at most {} decimals (empty for no bound)",
                BtcAmount::SCALE
            );
            env.malformed(name, &text, &reason);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(min: &str, max: &str) -> Result<OrderLimits, String> {
        read_all(min, max, "")
    }

    fn read_all(min: &str, max: &str, per_client: &str) -> Result<OrderLimits, String> {
        let mut env = Env::from_pairs([
            ("ORDER_MIN_BTC", min),
            ("ORDER_MAX_BTC", max),
            ("ORDER_MAX_BTC_PER_CLIENT", per_client),
        ]);
        let limits = OrderLimits::from_env(&mut env);
        env.finish(limits).map_err(|faults| faults.to_string())
    }

    fn check(limits: OrderLimits, btc: &str) -> Result<(), String> {
        let btc = btc.parse().unwrap_or_else(|error| panic!("{btc}: {error}"));
        limits.check(btc).map_err(|error| error.to_string())
    }

    #[test]
    fn an_order_at_a_bound_is_accepted_and_one_satoshi_beyond_is_refused_with_the_bound() -> Result<(), String>
    {
        let limits = read("0.0001", "0.5")?;
        let too_small =
            "the order is 0.00009999 BTC at the market rate, and the smallest order is 0.00010000 BTC";
        let too_large =
            "the order is 0.50000001 BTC at the market rate, and the largest order is 0.50000000 BTC";
        for (btc, expected) in [
            ("0.00009999", Err(too_small)),
            ("0.0001", Ok(())),
            ("0.5", Ok(())),
            ("0.50000001", Err(too_large)),
        ] {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(check(limits, btc), expected, "{btc}");
        }
        Ok(())
    }

    #[test]
    fn an_empty_bound_is_none_and_equal_bounds_leave_one_size() -> Result<(), String> {
        for btc in ["0.00000001", "999.99999999"] {
            assert_eq!(check(read("", "")?, btc), Ok(()));
        }
        assert_eq!(check(read("", "1")?, "0.00000001"), Ok(()));
        assert_eq!(check(read("1", "")?, "100"), Ok(()));
        assert_eq!(check(read("1", "1")?, "1"), Ok(()));
        assert!(read("100", "100.00000000").is_ok());
        Ok(())
    }

    #[test]
    fn each_faulty_bound_is_named_with_the_reason() {
        for faulty in ["0", "-0.1", "100.00000001", "1000", "0.000000001", "1e-4", "x"] {
            for (min, max, per_client, name) in [
                (faulty, "", "", "ORDER_MIN_BTC"),
                ("", faulty, "", "ORDER_MAX_BTC"),
                ("", "", faulty, "ORDER_MAX_BTC_PER_CLIENT"),
            ] {
                let line = format!(
                    "\n  {name} is malformed: {faulty:?} is not an amount of BTC above 0 and up to the cap of 100, with at most 8 decimals \
                     (empty for no bound)"
                );
                assert!(
                    read_all(min, max, per_client).is_err_and(|faults| faults.ends_with(&line)),
                    "{name}={faulty}"
                );
            }
        }
        let both = read("x", "y").err().unwrap_or_default();
        assert!(
            both.contains("ORDER_MIN_BTC") && both.contains("ORDER_MAX_BTC"),
            "{both}"
        );
        let crossed = "\n  ORDER_MIN_BTC, 2.00000000, is above ORDER_MAX_BTC, 1.00000000";
        assert!(read("2", "1").is_err_and(|faults| faults.ends_with(crossed)));
        let crossed = "\n  ORDER_MIN_BTC, 2.00000000, is above ORDER_MAX_BTC_PER_CLIENT, 1.00000000";
        assert!(read_all("2", "", "1").is_err_and(|faults| faults.ends_with(crossed)));
        assert!(read_all("1", "", "1").is_ok());
    }
}
