//! Orders and how much BTC they buy; no I/O. Which orders the book accepts is decided in the write model: see
//! [`crate::db::accept_orders`].

use common::money::{BtcAmount, BtcRate, Currency, FiatAmount};
use opentelemetry::Context;
use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

/// The sum of the BTC of all orders never exceeds this.
pub const CAP: Decimal = Decimal::ONE_HUNDRED;

/// What makes a request a repeat: requests with the same identity are one order, for ever. All else that an order carries is payload, and
/// belongs in [`Draft`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestIdentity {
    /// `client.id` of the client that sent the request.
    pub client_id: i64,
    /// The currency that the client pays in.
    pub currency: Currency,
    /// The amount that the client pays.
    pub amount: FiatAmount,
    /// The client's name for this order.
    pub idempotence_key: Uuid,
}

/// A request with its price. It becomes an order unless it is a repeat or is refused.
#[derive(Debug, Clone)]
pub struct Draft {
    /// What makes the request a repeat.
    pub identity: RequestIdentity,
    /// The id that clients will know the order by.
    pub external_id: Uuid,
    /// Fiat per BTC.
    pub rate: BtcRate,
    /// The BTC that the client gets.
    pub btc_amount: BtcAmount,
    /// The span that writes the draft, in the trace of the request.
    pub trace: Context,
}

/// An order in the book: a row of `buy_order`. Its currency is that of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `buy_order.id`. Ids ascend in the order of commits.
    pub id: i64,
    /// The id that clients know the order by.
    pub external_id: Uuid,
    /// When the order was written, to the microsecond.
    pub created_at: OffsetDateTime,
    /// The amount that was paid.
    pub currency_amount: FiatAmount,
    /// Fiat per BTC.
    pub btc_rate: BtcRate,
    /// The BTC that was bought.
    pub btc_amount: BtcAmount,
}

common::from_row!(Order {
    id,
    external_id,
    created_at,
    currency_amount,
    btc_rate,
    btc_amount
});

/// An order that an operator took out of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// The id that clients know the order by.
    pub external_id: Uuid,
    /// Why, in the words of the operator.
    pub reason: String,
}

common::from_row!(Voided { external_id, reason = "void_reason" });

/// The write model's decision on a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The draft is a new order.
    Created(Order),
    /// The draft repeats this order.
    Repeated(Order),
    /// The draft repeats an order that was voided since.
    Voided(Voided),
    /// The order would take the book past [`CAP`]; nothing was changed.
    OverCap,
    /// The client would have more BTC in the book than this limit; nothing was changed.
    OverClientLimit(BtcAmount),
    /// The write model does not have the currency: its schema is older than this service.
    NoCurrency,
    /// The write model does not have the client.
    NoClient,
}

/// `amount / rate`, rounded up to a whole satoshi. It is computed in integers, so that no digit is lost on the way. `None` when the result is
/// larger than any [`BtcAmount`], and so far over the cap.
#[must_use]
pub fn btc_amount(amount: FiatAmount, rate: BtcRate) -> Option<BtcAmount> {
    // Both mantissas have a fixed scale: amount = a / 10^2 and rate = r / 10^8, so amount / rate = a * 10^6 / r BTC, and a BTC has 10^8
    // satoshis. The largest numerator, about 10^11 * 10^14, is far below 2^127.
    const SCALE: i128 = 10_i128.pow(BtcRate::SCALE - FiatAmount::SCALE + BtcAmount::SCALE);
    let numerator = amount.decimal().mantissa().checked_mul(SCALE)?;
    let denominator = rate.decimal().mantissa();
    let satoshis = numerator
        .checked_add(denominator.checked_sub(1)?)?
        .checked_div(denominator)?;
    let btc = Decimal::try_from_i128_with_scale(satoshis, BtcAmount::SCALE).ok()?;
    BtcAmount::try_from(btc).ok()
}

#[cfg(test)]
mod tests;
