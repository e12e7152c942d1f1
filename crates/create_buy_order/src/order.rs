//! Orders, and how much BTC they buy; no I/O. What the book takes is decided by the write model: see [`crate::db::accept_orders`].

use common::money::{BtcAmount, BtcRate, Currency, FiatAmount};
use opentelemetry::Context;
use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

/// The sum of all orders' BTC never exceeds this.
pub const CAP: Decimal = Decimal::ONE_HUNDRED;

/// The one client there is: the write model is seeded with it, and requests carry no identity yet.
pub const CLIENT_ID: i64 = 1;

/// What a client asks for. Equal requests are one order, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderRequest {
    /// Who asks.
    pub client_id: i64,
    /// What the client pays in.
    pub currency: Currency,
    /// What the client pays.
    pub amount: FiatAmount,
    /// The client's name for this one order.
    pub idempotence_key: Uuid,
}

/// A request with its price: an order, unless it is a repeat or over the cap.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What was asked for.
    pub request: OrderRequest,
    /// The id that clients will know the order by.
    pub external_id: Uuid,
    /// Fiat per BTC.
    pub rate: BtcRate,
    /// What the client gets.
    pub btc_amount: BtcAmount,
    /// The trace that the request belongs to, and the span that writes the draft.
    pub trace: Context,
}

/// An order in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number: the order of ids is the order of commits.
    pub id: i64,
    /// The id that clients know it by.
    pub external_id: Uuid,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// What was paid in.
    pub currency: Currency,
    /// What was paid.
    pub currency_amount: FiatAmount,
    /// Fiat per BTC.
    pub btc_rate: BtcRate,
    /// What was bought.
    pub btc_amount: BtcAmount,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A new order.
    Created(Order),
    /// The order that an equal request made before.
    Repeated(Order),
    /// The order would take the book past [`CAP`]; nothing was changed.
    OverCap,
    /// The write model does not have the currency yet: its schema is older than this service.
    NoCurrency,
    /// The write model does not have the client.
    NoClient,
}

/// `amount / rate`, rounded up to a whole satoshi, computed in integers so that no digit is lost midway. `None` where the result is
/// beyond any [`BtcAmount`], and so far over the cap.
#[must_use]
pub fn btc_amount(amount: FiatAmount, rate: BtcRate) -> Option<BtcAmount> {
    const SATOSHIS_PER_BTC: i128 = 100_000_000;
    // Both texts have a fixed scale: amount = a / 10^2 and rate = r / 10^8, so amount / rate = a * 10^6 / r BTC. The largest numerator,
    // about 10^11 * 10^6 * 10^8, is far below 2^127.
    const SCALE_DIFFERENCE: i128 = 10_i128.pow(BtcRate::SCALE - FiatAmount::SCALE);
    let numerator = amount
        .decimal()
        .mantissa()
        .checked_mul(SCALE_DIFFERENCE)?
        .checked_mul(SATOSHIS_PER_BTC)?;
    let denominator = rate.decimal().mantissa();
    let satoshis = numerator
        .checked_add(denominator.checked_sub(1)?)?
        .checked_div(denominator)?;
    let btc = Decimal::try_from_i128_with_scale(satoshis, BtcAmount::SCALE).ok()?;
    BtcAmount::try_from(btc).ok()
}

#[cfg(test)]
mod tests;
