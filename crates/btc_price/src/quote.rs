//! When a quote is reused and when Coinbase is asked for a new one.
//!
//! Coinbase allows about 10,000 requests an hour, and there may be more orders than that. So a quote is reused until it is
//! `QUOTE_MAX_AGE_S` old, concurrent callers share one request per currency (single flight), and a failure is followed by a pause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::logging::chain;
use common::money::{Currency, PerCurrency};
use common::timestamp::rfc3339_micros;
use opentelemetry::trace::FutureExt as _;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::coinbase::{Coinbase, CoinbaseError, PRICE_TYPE, Price};
use crate::deviation::{Guard, Verdict};
use crate::error::Unavailable;
use crate::metrics::METRICS;

/// The pause after a first failure without `Retry-After`. It doubles with each further failure: three requests a second could keep a rate
/// limit in force for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// The longest such pause. Orders wait for a price, so it is short.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The longest `Retry-After` that is honoured: a longer one may be a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The price of one BTC at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Quote {
    /// When the price provider answered: RFC 3339, UTC, microseconds.
    #[schema(format = DateTime, example = "2026-11-23T15:37:32.531853Z")]
    pub(crate) timestamp: String,
    /// The currency of the rate, ISO 4217.
    #[schema(value_type = String, example = "USD")]
    pub(crate) currency: &'static str,
    /// What one BTC costs: the price provider's own decimal text; positive, at most 12 digits and 8 decimals.
    #[schema(example = "48478.88")]
    pub(crate) rate: String,
    /// Until when it may be reused.
    #[serde(skip)]
    pub(crate) fresh_until: Instant,
}

type QuoteResult = Result<Quote, Unavailable>;

/// The latest quotes, shared by all requests; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Quotes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    coinbase: Coinbase,
    max_age: Duration,
    guard: Option<Guard>,
    slots: PerCurrency<Mutex<Slot>>,
    /// Set while the last request, in any currency, has failed.
    last_failure: Mutex<Option<Unavailable>>,
}

impl Quotes {
    /// Quotes of `coinbase`, each reused until it is `max_age` old. A price that `guard` refuses is not quoted.
    pub(crate) fn new(coinbase: Coinbase, max_age: Duration, guard: Option<Guard>) -> Self {
        Self(Arc::new(Shared {
            coinbase,
            max_age,
            guard,
            slots: PerCurrency::default(),
            last_failure: Mutex::default(),
        }))
    }

    /// The origin of the quotes: `coinbase` or `simulator`.
    pub(crate) fn source(&self) -> &'static str {
        self.0.coinbase.endpoint.source()
    }

    /// Whether Coinbase gives prices, for the readiness check. It fails only during the pause after a failed request: after that the service
    /// must get requests again, or it would never find out that Coinbase is back.
    ///
    /// # Errors
    /// Why there was no price.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*locked(&self.0.last_failure) {
            Some(failure) if Instant::now() < failure.retry_at => Err(chain(&*failure.cause)),
            _ => Ok(()),
        }
    }

    /// A quote that is younger than the maximal age, from Coinbase if there is none.
    ///
    /// # Errors
    /// When Coinbase gives no price, or gave none a moment ago.
    pub(crate) async fn quote(&self, currency: Currency) -> Result<Quote, Unavailable> {
        let (mut response, sender) = locked(&self.0.slots[currency]).look_up(Instant::now());
        if let Some(sender) = sender {
            self.send_request(currency, sender);
        }
        let received = response
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|result| result.clone());
        received.unwrap_or_else(|| Err(unavailable(CoinbaseError::Interrupted, 0, Instant::now())))
    }

    /// Runs in its own task: other callers wait for the response even when the client that caused the request disconnects.
    fn send_request(&self, currency: Currency, sender: Sender) {
        let shared = Arc::clone(&self.0);
        let task = async move {
            let received = shared.request(currency).await;
            let result = locked(&shared.slots[currency]).record(received, Instant::now());
            *locked(&shared.last_failure) = result.as_ref().err().cloned();
            sender.send_replace(Some(result));
        };
        tokio::spawn(task.with_current_context());
    }
}

impl Shared {
    async fn request(&self, currency: Currency) -> Result<Quote, CoinbaseError> {
        let begun = Instant::now();
        let price = self.coinbase.buy_price(currency).await;
        let price = price.and_then(|price| self.check_deviation(currency, price));
        METRICS.count_request(currency, begun, &price);
        if let Err(error) = &price {
            self.report(currency, error);
        }
        price.map(|price| Quote {
            timestamp: rfc3339_micros(OffsetDateTime::now_utc()),
            currency: currency.iso3(),
            rate: price.text,
            fresh_until: Instant::now() + self.max_age,
        })
    }

    fn check_deviation(&self, currency: Currency, price: Price) -> Result<Price, CoinbaseError> {
        let Some(guard) = &self.guard else {
            return Ok(price);
        };
        match guard.judge(currency, price.rate, Instant::now()) {
            Verdict::Good => Ok(price),
            Verdict::Believed { last_good } => {
                tracing::warn!(
                    event = "quote_deviation_believed",
                    source = self.coinbase.endpoint.source(),
                    currency = currency.iso3(),
                    last_good_rate = %last_good,
                    offered_rate = %price.rate,
                );
                Ok(price)
            }
            Verdict::Refused { last_good } => Err(CoinbaseError::Deviates {
                last_good,
                offered: price.rate,
            }),
        }
    }

    fn report(&self, currency: Currency, error: &CoinbaseError) {
        match error {
            CoinbaseError::Deviates { last_good, offered } => tracing::warn!(
                event = "quote_deviation_refused",
                source = self.coinbase.endpoint.source(),
                currency = currency.iso3(),
                last_good_rate = %last_good,
                offered_rate = %offered,
            ),
            _ => tracing::error!(
                event = "coinbase_client_exception_occurred",
                currency = currency.iso3(),
                price_type = PRICE_TYPE,
                info = chain(error),
            ),
        }
    }
}

/// A poisoned lock does no harm: values are replaced whole, never left half written.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a request; nothing while it is in flight.
type Response = watch::Receiver<Option<QuoteResult>>;
type Sender = watch::Sender<Option<QuoteResult>>;

/// The last request for the price in one currency.
#[derive(Debug, Default)]
struct Slot {
    response: Option<Response>,
    /// Consecutive failures.
    failures: u32,
}

impl Slot {
    /// What a caller at `now` waits for. With a sender, the caller must send a request, and give its result to the sender.
    fn look_up(&mut self, now: Instant) -> (Response, Option<Sender>) {
        if let Some(response) = &self.response {
            // `has_changed` fails when the sender was dropped: before a result that means that its task died. It comes before `borrow`,
            // because a result may arrive in between.
            let is_in_flight = response.has_changed().is_ok();
            let is_current = match &*response.borrow() {
                None => is_in_flight,
                Some(Ok(quote)) => now < quote.fresh_until,
                Some(Err(unavailable)) => now < unavailable.retry_at,
            };
            if is_current {
                return (response.clone(), None);
            }
        }
        let (sender, response) = watch::channel(None);
        self.response = Some(response.clone());
        (response, Some(sender))
    }

    /// Counts failures, and returns the result for all callers that wait for it.
    fn record(&mut self, received: Result<Quote, CoinbaseError>, now: Instant) -> QuoteResult {
        let result = received.map_err(|error| unavailable(error, self.failures, now));
        self.failures = match result {
            Ok(_) => 0,
            Err(_) => self.failures.saturating_add(1),
        };
        result
    }
}

/// `failures`: how many went directly before this one.
fn unavailable(cause: CoinbaseError, failures: u32, now: Instant) -> Unavailable {
    let pause = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(MAX_PAUSE);
    let retry_after = match &cause {
        CoinbaseError::Status {
            retry_after: Some(requested),
            ..
        } => (*requested).clamp(pause, MAX_RETRY_AFTER),
        _ => pause,
    };
    Unavailable {
        cause: Arc::new(cause),
        retry_at: now + retry_after,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    const MAX_AGE: Duration = Duration::from_secs(2);
    const ONE_NANOSECOND: Duration = Duration::from_nanos(1);

    fn quote_at(now: Instant) -> Quote {
        Quote {
            timestamp: String::new(),
            currency: "USD",
            rate: "1".to_owned(),
            fresh_until: now + MAX_AGE,
        }
    }

    fn failure(retry_after_s: Option<u64>) -> Result<Quote, CoinbaseError> {
        Err(CoinbaseError::Status {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: retry_after_s.map(Duration::from_secs),
        })
    }

    fn request_due(slot: &mut Slot, now: Instant) -> Option<Sender> {
        slot.look_up(now).1
    }

    /// The result of the request that is due at `now`.
    fn request(slot: &mut Slot, now: Instant, received: Result<Quote, CoinbaseError>) -> QuoteResult {
        let Some(sender) = request_due(slot, now) else {
            panic!("no request is due")
        };
        let result = slot.record(received, now);
        sender.send_replace(Some(result.clone()));
        result
    }

    #[test]
    fn a_quote_is_reused_until_it_has_the_maximal_age() {
        let now = Instant::now();
        let mut slot = Slot::default();
        assert!(request(&mut slot, now, Ok(quote_at(now))).is_ok());
        for age in [Duration::ZERO, MAX_AGE - ONE_NANOSECOND] {
            let (response, sender) = slot.look_up(now + age);
            assert!(sender.is_none());
            assert!(matches!(&*response.borrow(), Some(Ok(known)) if *known == quote_at(now)));
        }
        assert!(request_due(&mut slot, now + MAX_AGE).is_some());
    }

    #[test]
    fn one_caller_sends_the_request_and_the_others_wait_for_it() {
        let now = Instant::now();
        let mut slot = Slot::default();
        let sender = request_due(&mut slot, now);
        assert!(sender.is_some(), "nobody sends a request");
        for _ in 0..3 {
            let (response, sender) = slot.look_up(now);
            assert!(sender.is_none() && response.borrow().is_none());
        }
        drop(sender);
        assert!(
            request_due(&mut slot, now).is_some(),
            "a dropped sender must not leave the others waiting"
        );
    }

    #[test]
    fn a_failure_is_remembered_briefly_or_as_long_as_the_provider_asks() {
        let now = Instant::now();
        for (wanted, pause) in [
            (None, FIRST_PAUSE),
            (Some(0), FIRST_PAUSE),
            (Some(7), Duration::from_secs(7)),
            (Some(86_400), Duration::from_secs(60)),
        ] {
            let mut slot = Slot::default();
            assert!(request(&mut slot, now, failure(wanted)).is_err());
            let (response, sender) = slot.look_up(now + pause - ONE_NANOSECOND);
            assert!(sender.is_none(), "{wanted:?}");
            assert!(
                matches!(&*response.borrow(), Some(Err(known)) if known.retry_at == now + pause),
                "{wanted:?}"
            );
            assert!(request_due(&mut slot, now + pause).is_some(), "{wanted:?}");
        }
    }

    #[test]
    fn the_pause_doubles_with_each_failure_up_to_a_bound_until_there_is_a_price() {
        let mut now = Instant::now();
        let mut slot = Slot::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let Err(failure) = request(&mut slot, now, failure(None)) else {
                panic!("a failure is no quote")
            };
            pauses.push(failure.retry_at - now);
            now = failure.retry_at;
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[39], MAX_PAUSE);

        assert!(request(&mut slot, now, Ok(quote_at(now))).is_ok());
        assert_eq!(slot.failures, 0);
    }
}
