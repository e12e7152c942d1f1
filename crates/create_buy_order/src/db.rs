//! Every SQL statement of this service: new orders and repeats here, stored orders in [`history`], the outbox in [`outbox`], the lease of
//! the relay in [`lease`].

pub mod history;
pub mod lease;
pub mod outbox;

use common::money::{BtcAmount, BtcRate, Currency, FiatAmount, MoneyError};
use common::trace_context::{traceparent, tracestate};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::order::{Draft, Order, RequestIdentity, Verdict};

/// The only way to write an order: see `migrations/write_model/V4__repeats_wait_for_no_lock.sql`.
const ACCEPT_ORDERS: &str = "
    SELECT index, verdict, id, external_id, created_at, currency_amount, btc_rate, btc_amount
      FROM accept_orders($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Writes the drafts that the book accepts, and returns a verdict for each draft, in the same order. All is written in one transaction. After
/// a lost answer the call may be repeated: a draft that the first call wrote is `Created` again.
///
/// # Errors
/// When the write model fails or refuses a draft. Then nothing is written. Only after a lost connection it is unknown.
pub async fn accept_orders(connection: &mut PgConnection, drafts: &[Draft]) -> sqlx::Result<Vec<Verdict>> {
    let columns = Columns::of(drafts);
    let rows: Vec<VerdictRow> = sqlx::query_as(ACCEPT_ORDERS)
        .bind(columns.external_ids)
        .bind(columns.client_ids)
        .bind(columns.currencies)
        .bind(columns.currency_amounts)
        .bind(columns.idempotence_keys)
        .bind(columns.btc_rates)
        .bind(columns.btc_amounts)
        .bind(columns.traceparents)
        .bind(columns.tracestates)
        .fetch_all(connection)
        .await?;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; drafts.len()];
    for row in rows {
        let index = usize::try_from(row.index).map_err(undecodable)?;
        let draft = drafts.get(index).ok_or(sqlx::Error::RowNotFound)?;
        verdicts[index] = Some(row.verdict(draft)?);
    }
    verdicts
        .into_iter()
        .map(|verdict| verdict.ok_or(sqlx::Error::RowNotFound))
        .collect()
}

/// The columns of the drafts: `accept_orders` takes an array for each.
#[derive(Default)]
struct Columns {
    external_ids: Vec<Uuid>,
    client_ids: Vec<i64>,
    currencies: Vec<&'static str>,
    currency_amounts: Vec<Decimal>,
    idempotence_keys: Vec<Uuid>,
    btc_rates: Vec<Decimal>,
    btc_amounts: Vec<Decimal>,
    traceparents: Vec<Option<String>>,
    tracestates: Vec<Option<String>>,
}

impl Columns {
    fn of(drafts: &[Draft]) -> Self {
        let mut columns = Self::default();
        for draft in drafts {
            let Draft {
                identity,
                external_id,
                rate,
                btc_amount,
                trace,
            } = draft;
            let RequestIdentity {
                client_id,
                currency,
                amount,
                idempotence_key,
            } = identity;
            columns.external_ids.push(*external_id);
            columns.client_ids.push(*client_id);
            columns.currencies.push(currency.iso3());
            columns.currency_amounts.push(amount.decimal());
            columns.idempotence_keys.push(*idempotence_key);
            columns.btc_rates.push(rate.decimal());
            columns.btc_amounts.push(btc_amount.decimal());
            columns.traceparents.push(traceparent(trace));
            columns.tracestates.push(tracestate(trace));
        }
        columns
    }
}

/// A verdict of `accept_orders`. The columns of the order are null if there is no order.
#[derive(sqlx::FromRow)]
struct VerdictRow {
    index: i64,
    verdict: String,
    id: Option<i64>,
    external_id: Option<Uuid>,
    created_at: Option<OffsetDateTime>,
    currency_amount: Option<Decimal>,
    btc_rate: Option<Decimal>,
    btc_amount: Option<Decimal>,
}

impl VerdictRow {
    fn verdict(self, draft: &Draft) -> sqlx::Result<Verdict> {
        match self.verdict.as_str() {
            "created" => Ok(Verdict::Created(self.order(draft.identity.currency)?)),
            "repeated" => Ok(Verdict::Repeated(self.order(draft.identity.currency)?)),
            "over_cap" => Ok(Verdict::OverCap),
            "no_currency" => Ok(Verdict::NoCurrency),
            "no_client" => Ok(Verdict::NoClient),
            other => Err(sqlx::Error::Decode(format!("unknown verdict {other:?}").into())),
        }
    }

    fn order(self, currency: Currency) -> sqlx::Result<Order> {
        OrderRow {
            id: present(self.id)?,
            external_id: present(self.external_id)?,
            created_at: present(self.created_at)?,
            currency_amount: present(self.currency_amount)?,
            btc_rate: present(self.btc_rate)?,
            btc_amount: present(self.btc_amount)?,
        }
        .order(currency)
    }
}

fn present<T>(column: Option<T>) -> sqlx::Result<T> {
    column.ok_or_else(|| undecodable(sqlx::error::UnexpectedNullError))
}

/// A row of `buy_order`. The currency is known from the request.
#[derive(sqlx::FromRow)]
struct OrderRow {
    id: i64,
    external_id: Uuid,
    created_at: OffsetDateTime,
    currency_amount: Decimal,
    btc_rate: Decimal,
    btc_amount: Decimal,
}

impl OrderRow {
    fn order(self, currency: Currency) -> sqlx::Result<Order> {
        Ok(Order {
            id: self.id,
            external_id: self.external_id,
            created_at: self.created_at,
            currency,
            currency_amount: money::<FiatAmount>(self.currency_amount)?,
            btc_rate: money::<BtcRate>(self.btc_rate)?,
            btc_amount: money::<BtcAmount>(self.btc_amount)?,
        })
    }
}

fn money<T>(amount: Decimal) -> sqlx::Result<T>
where
    T: TryFrom<Decimal, Error = MoneyError>,
{
    T::try_from(amount).map_err(undecodable)
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// The currencies that are missing in the write model, because its schema is older than the service.
///
/// # Errors
/// When the write model is away.
pub async fn missing_currencies(connection: &mut PgConnection) -> sqlx::Result<Vec<Currency>> {
    let there: Vec<String> = sqlx::query_scalar("SELECT iso3::text FROM currency")
        .fetch_all(connection)
        .await?;
    let is_missing = |currency: &Currency| there.iter().all(|iso3| iso3 != currency.iso3());
    Ok(Currency::ALL.into_iter().filter(is_missing).collect())
}

/// Finds the orders of repeated requests.
///
/// One index lookup per request, and no join: while PostgreSQL has no statistics, or those of an empty table, it joins by scanning the whole
/// table (measured: 2.4 ms instead of 0.03 ms with 12,000 orders).
pub const LOOK_UP: &str = "
    SELECT asked.index - 1 AS index, found.*
      FROM unnest($1::bigint[], $2::text[], $3::numeric[], $4::uuid[]) WITH ORDINALITY
           AS asked (client_id, currency, currency_amount, idempotence_key, index)
     CROSS JOIN LATERAL (
           SELECT id, external_id, created_at, currency_amount, btc_rate, btc_amount
             FROM buy_order
            WHERE client_id = asked.client_id
              AND currency_id = (SELECT currency.id FROM currency WHERE currency.iso3 = asked.currency)
              AND currency_amount = asked.currency_amount
              AND idempotence_key = asked.idempotence_key
            LIMIT 1) AS found";

#[derive(sqlx::FromRow)]
struct FoundRow {
    index: i64,
    #[sqlx(flatten)]
    order: OrderRow,
}

/// Returns the order of each identity, if there is one, in the same order.
///
/// # Errors
/// When the write model does not answer.
pub async fn look_up(
    connection: &mut PgConnection,
    identities: &[RequestIdentity],
) -> sqlx::Result<Vec<Option<Order>>> {
    let client_ids: Vec<i64> = identities.iter().map(|of| of.client_id).collect();
    let currencies: Vec<&str> = identities.iter().map(|of| of.currency.iso3()).collect();
    let amounts: Vec<Decimal> = identities.iter().map(|of| of.amount.decimal()).collect();
    let keys: Vec<Uuid> = identities.iter().map(|of| of.idempotence_key).collect();
    let rows: Vec<FoundRow> = sqlx::query_as(LOOK_UP)
        .bind(client_ids)
        .bind(currencies)
        .bind(amounts)
        .bind(keys)
        .fetch_all(connection)
        .await?;
    let mut orders = vec![None; identities.len()];
    for row in rows {
        let index = usize::try_from(row.index).map_err(undecodable)?;
        let identity = identities.get(index).ok_or(sqlx::Error::RowNotFound)?;
        orders[index] = Some(row.order.order(identity.currency)?);
    }
    Ok(orders)
}
