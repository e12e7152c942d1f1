//! When a quote is reused, and when Coinbase is asked anew.
//!
//! Coinbase allows some 10,000 requests an hour, fewer than orders may come. So a quote is reused until it is
//! `QUOTE_MAX_AGE_S` old, requests that come while Coinbase is being asked wait for that one answer, and after a
//! failure Coinbase is left alone for a moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::logging::chain;
use common::money::Currency;
use common::timestamp::rfc3339_micros;
use opentelemetry::trace::FutureExt as _;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::coinbase::{Coinbase, PRICE_TYPE, PriceError};
use crate::error::Unavailable;
use crate::metrics::METRICS;

/// How long Coinbase is left alone after a failure that does not say how long. It doubles with each further failure, because asking three
/// times a second would keep a rate limit in force for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// That pause at its longest: orders wait for a price.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A `Retry-After` beyond this is honoured only so far: it may be a mistake.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// What one BTC cost at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quote {
    /// When the price provider answered: RFC 3339, UTC, microseconds.
    #[schema(format = DateTime, example = "2026-11-23T15:37:32.531853Z")]
    pub timestamp: String,
    /// The currency of the rate, ISO 4217.
    #[schema(value_type = String, example = "USD")]
    pub currency: &'static str,
    /// What one BTC costs: the price provider's own decimal text; positive, at most 12 digits and 8 decimals.
    #[schema(example = "48478.88")]
    pub rate: String,
    /// Until when it may be reused.
    #[serde(skip)]
    pub fresh_until: Instant,
}

type Outcome = Result<Quote, Unavailable>;

/// The latest quotes, shared by all requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    coinbase: Coinbase,
    max_age: Duration,
    usd: Mutex<Slot>,
    eur: Mutex<Slot>,
    gbp: Mutex<Slot>,
    /// Until when Coinbase is left alone, and why, where the last request to it in any currency failed.
    last_failure: Mutex<Option<(Instant, Arc<PriceError>)>>,
}

impl Quotes {
    /// Quotes of `coinbase`, each reused until it is `max_age` old.
    #[must_use]
    pub fn new(coinbase: Coinbase, max_age: Duration) -> Self {
        let (usd, eur, gbp) = Default::default();
        Self(Arc::new(Shared {
            coinbase,
            max_age,
            usd,
            eur,
            gbp,
            last_failure: Mutex::default(),
        }))
    }

    /// Where the quotes come from: `coinbase` or `simulator`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.0.coinbase.source()
    }

    /// Whether Coinbase gives prices, judged by the last request to it, for as long as it is left alone after a failure. Then the next
    /// request may try, so the service must be offered one: a verdict that lasted longer would keep it out of work for ever.
    ///
    /// # Errors
    ///
    /// Why there was no price.
    pub fn judge(&self) -> Result<(), String> {
        match &*self.0.last_failure() {
            Some((until, cause)) if Instant::now() < *until => Err(chain(&**cause)),
            _ => Ok(()),
        }
    }

    /// A quote that is recent enough, the one at hand or a new one.
    ///
    /// # Errors
    ///
    /// The price provider gave none, now or a moment ago.
    pub async fn quote(&self, currency: Currency) -> Result<Quote, Unavailable> {
        let mut flight = match self.0.at_hand(currency) {
            AtHand::Known(outcome) => return outcome,
            AtHand::Asked(flight) => flight,
            AtHand::NotAsked(asker) => self.take_off(currency, asker),
        };
        let landed = flight
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| outcome.clone());
        landed.unwrap_or_else(|| Err(unavailable(PriceError::Interrupted, 0)))
    }

    /// In a task of its own, because others wait for the answer too when the client that came first hangs up.
    fn take_off(&self, currency: Currency, asker: watch::Sender<Option<Outcome>>) -> Flight {
        let flight = asker.subscribe();
        let shared = Arc::clone(&self.0);
        let task = async move {
            let asked = shared.ask(currency).await;
            let outcome = shared.slot(currency, |slot| slot.land(asked, Instant::now()));
            shared.remember(&outcome);
            asker.send_replace(Some(outcome));
        };
        tokio::spawn(task.with_current_context());
        flight
    }
}

impl Shared {
    fn slot<T>(&self, currency: Currency, use_it: impl FnOnce(&mut Slot) -> T) -> T {
        let slot = match currency {
            Currency::Usd => &self.usd,
            Currency::Eur => &self.eur,
            Currency::Gbp => &self.gbp,
        };
        // A slot is replaced whole, never left half written, so a panic elsewhere does not spoil it.
        use_it(&mut slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<(Instant, Arc<PriceError>)>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, outcome: &Outcome) {
        let failure = outcome.as_ref().err();
        *self.last_failure() =
            failure.map(|failure| (Instant::now() + failure.retry_after, Arc::clone(&failure.cause)));
    }

    fn at_hand(&self, currency: Currency) -> AtHand {
        self.slot(currency, |slot| slot.at_hand(Instant::now()))
    }

    async fn ask(&self, currency: Currency) -> Result<Quote, PriceError> {
        let begun = Instant::now();
        let asked = self.coinbase.buy_price(currency).await;
        METRICS.asked(currency, begun, &asked);
        if let Err(error) = &asked {
            tracing::error!(
                event = "coinbase_client_exception_occurred",
                currency = currency.iso3(),
                price_type = PRICE_TYPE,
                info = chain(error),
            );
        }
        asked.map(|rate| Quote {
            timestamp: rfc3339_micros(OffsetDateTime::now_utc()),
            currency: currency.iso3(),
            rate,
            fresh_until: Instant::now() + self.max_age,
        })
    }
}

type Flight = watch::Receiver<Option<Outcome>>;

/// What is known of the price in one currency.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    InFlight {
        flight: Flight,
        failures: u32,
    },
    Quoted(Quote),
    Failed {
        cause: Arc<PriceError>,
        until: Instant,
        /// In a row, this one included.
        failures: u32,
    },
}

enum AtHand {
    Known(Outcome),
    Asked(Flight),
    NotAsked(watch::Sender<Option<Outcome>>),
}

impl Slot {
    /// Keeps what Coinbase was asked for; answers what all who wait for it get.
    fn land(&mut self, asked: Result<Quote, PriceError>, now: Instant) -> Outcome {
        let failures = self.failures();
        let outcome = asked.map_err(|error| unavailable(error, failures));
        *self = match &outcome {
            Ok(quote) => Self::Quoted(quote.clone()),
            Err(Unavailable { cause, retry_after }) => Self::Failed {
                cause: Arc::clone(cause),
                until: now + *retry_after,
                failures: failures.saturating_add(1),
            },
        };
        outcome
    }

    fn failures(&self) -> u32 {
        match self {
            Self::InFlight { failures, .. } | Self::Failed { failures, .. } => *failures,
            Self::Empty | Self::Quoted(_) => 0,
        }
    }

    /// What answers a request at `now`. Where that is nothing, the caller must ask, and the slot is in flight.
    fn at_hand(&mut self, now: Instant) -> AtHand {
        match self {
            Self::Quoted(quote) if now < quote.fresh_until => {
                return AtHand::Known(Ok(quote.clone()));
            }
            Self::Failed { cause, until, .. } if now < *until => {
                let retry_after = until.saturating_duration_since(now);
                return AtHand::Known(Err(Unavailable {
                    cause: Arc::clone(cause),
                    retry_after,
                }));
            }
            // The sender is gone before it sent only when its task died; then somebody must ask again.
            Self::InFlight { flight, .. } if flight.has_changed().is_ok() => {
                return AtHand::Asked(flight.clone());
            }
            Self::Empty | Self::InFlight { .. } | Self::Quoted(_) | Self::Failed { .. } => {}
        }
        let (asker, flight) = watch::channel(None);
        *self = Self::InFlight {
            flight,
            failures: self.failures(),
        };
        AtHand::NotAsked(asker)
    }
}

/// `failures` went before this one.
fn unavailable(cause: PriceError, failures: u32) -> Unavailable {
    let pause = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(LONGEST_PAUSE);
    let retry_after = match &cause {
        PriceError::Status {
            retry_after: Some(wanted),
            ..
        } => (*wanted).clamp(pause, MOST_PATIENCE),
        _ => pause,
    };
    Unavailable {
        cause: Arc::new(cause),
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use reqwest::StatusCode;

    use super::{AtHand, FIRST_PAUSE, LONGEST_PAUSE, PriceError, Quote, Slot};

    const MAX_AGE: Duration = Duration::from_secs(2);
    const A_MOMENT: Duration = Duration::from_nanos(1);

    fn quote_at(now: Instant) -> Quote {
        Quote {
            timestamp: String::new(),
            currency: "USD",
            rate: "1".to_owned(),
            fresh_until: now + MAX_AGE,
        }
    }

    fn failure(retry_after_s: Option<u64>) -> Result<Quote, PriceError> {
        Err(PriceError::Status {
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: retry_after_s.map(Duration::from_secs),
        })
    }

    fn asks(slot: &mut Slot, now: Instant) -> bool {
        matches!(slot.at_hand(now), AtHand::NotAsked(_))
    }

    #[test]
    fn a_quote_is_reused_until_it_has_the_maximal_age() {
        let now = Instant::now();
        let mut slot = Slot::Empty;
        assert!(slot.land(Ok(quote_at(now)), now).is_ok());
        for age in [Duration::ZERO, MAX_AGE - A_MOMENT] {
            assert!(matches!(slot.at_hand(now + age), AtHand::Known(Ok(known)) if known == quote_at(now)));
        }
        assert!(asks(&mut slot, now + MAX_AGE));
    }

    #[test]
    fn one_asks_and_the_others_wait_for_it() {
        let now = Instant::now();
        let mut slot = Slot::Empty;
        let AtHand::NotAsked(asker) = slot.at_hand(now) else {
            panic!("nobody asks")
        };
        for _ in 0..3 {
            assert!(matches!(slot.at_hand(now), AtHand::Asked(_)));
        }
        drop(asker);
        assert!(
            asks(&mut slot, now),
            "a dead asker must not leave the others waiting"
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
            let mut slot = Slot::Empty;
            assert!(slot.land(failure(wanted), now).is_err());
            let last = slot.at_hand(now + pause - A_MOMENT);
            assert!(
                matches!(last, AtHand::Known(Err(known)) if known.retry_after == A_MOMENT),
                "{wanted:?}"
            );
            assert!(asks(&mut slot, now + pause), "{wanted:?}");
        }
    }
    #[test]
    fn the_pause_doubles_with_each_failure_up_to_a_bound_until_a_price_comes() {
        let mut now = Instant::now();
        let mut slot = Slot::Empty;
        let mut fail = |slot: &mut Slot| {
            assert!(asks(slot, now));
            let pause = slot
                .land(failure(None), now)
                .map(|_| ())
                .map_err(|known| known.retry_after);
            let pause = pause.err().unwrap_or_default();
            now += pause;
            pause
        };
        let pauses: Vec<Duration> = (0..40).map(|_| fail(&mut slot)).collect();
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[39], LONGEST_PAUSE);

        assert!(slot.land(Ok(quote_at(now)), now).is_ok());
        assert_eq!(slot.failures(), 0);
    }
}
