//! The rules of the book as plain Rust, and random batches to try them with.

use std::collections::HashSet;

use common::money::Currency;
use proptest::collection::vec;
use proptest::prelude::*;
use rust_decimal::Decimal;
use uuid::Uuid;

pub(super) const CAP: Decimal = Decimal::ONE_HUNDRED;

/// The parts that make two requests equal. The amount is in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) client: i64,
    pub(super) currency: &'static str,
    pub(super) amount: i64,
    pub(super) key: u128,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Draft {
    pub(super) request: Request,
    /// 1 and 1.00 are the same amount.
    pub(super) trailing_zeros: bool,
    pub(super) satoshis: i64,
    pub(super) traced: bool,
    pub(super) external_id: Uuid,
}

impl Draft {
    pub(super) fn amount(&self) -> Decimal {
        let amount = Decimal::new(self.request.amount, 2);
        if self.trailing_zeros {
            amount
        } else {
            amount.normalize()
        }
    }

    pub(super) fn btc_amount(&self) -> Decimal {
        Decimal::new(self.satoshis, 8)
    }

    /// Unique, because it contains the external id.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.traced
            .then(|| format!("00-{}-00f067aa0ba902b7-01", self.external_id.simple()))
    }

    pub(super) fn tracestate(&self) -> Option<String> {
        self.traced.then(|| format!("vendor={}", self.external_id))
    }
}

pub(super) const RATE: i64 = 4_847_888_000_000;

/// The verdict on a draft; a repeat has the external id of the first order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Created,
    Repeated(Uuid),
    NoCurrency,
    NoClient,
    OverClientLimit,
    OverCap,
    Voided(Uuid),
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Repeated(_) => "repeated",
            Self::NoCurrency => "no_currency",
            Self::NoClient => "no_client",
            Self::OverClientLimit => "over_client_limit",
            Self::OverCap => "over_cap",
            Self::Voided(_) => "voided",
        }
    }
}

/// The clients of the write model in these tests.
pub(super) const CLIENTS: [i64; 2] = [1, 2];

/// The rules, applied to one draft after the other.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) orders: Vec<Draft>,
    pub(super) voided: HashSet<Uuid>,
}

impl Model {
    /// The BTC of the orders in the book that this is true of.
    fn sum(&self, of: impl Fn(&Draft) -> bool) -> Decimal {
        let in_the_book = |order: &&Draft| !self.voided.contains(&order.external_id) && of(order);
        self.orders
            .iter()
            .filter(in_the_book)
            .map(Draft::btc_amount)
            .sum()
    }

    pub(super) fn total(&self) -> Decimal {
        self.sum(|_| true)
    }

    /// The verdict, or both where two reasons hold.
    pub(super) fn decide(&mut self, draft: &Draft, client_limit: Option<Decimal>) -> Vec<Verdict> {
        if let Some(first) = self.orders.iter().find(|order| order.request == draft.request) {
            let first = first.external_id;
            return vec![if self.voided.contains(&first) {
                Verdict::Voided(first)
            } else {
                Verdict::Repeated(first)
            }];
        }
        if Currency::parse(draft.request.currency).is_none() {
            return vec![Verdict::NoCurrency];
        }
        let client = draft.request.client;
        if !CLIENTS.contains(&client) {
            return vec![Verdict::NoClient];
        }
        let of_client = self.sum(|order| order.request.client == client);
        let mut reasons = Vec::new();
        if client_limit.is_some_and(|limit| of_client + draft.btc_amount() > limit) {
            reasons.push(Verdict::OverClientLimit);
        }
        if self.total() + draft.btc_amount() > CAP {
            reasons.push(Verdict::OverCap);
        }
        if reasons.is_empty() {
            self.orders.push(*draft);
            reasons.push(Verdict::Created);
        }
        reasons
    }
}

pub(super) fn draft(key: u128, satoshis: i64) -> Draft {
    Draft {
        request: Request {
            client: 1,
            currency: "USD",
            amount: 12_345,
            key,
        },
        trailing_zeros: true,
        satoshis,
        traced: false,
        external_id: Uuid::new_v4(),
    }
}

/// From small sets, so that requests repeat within a batch and across batches.
pub(super) fn request() -> impl Strategy<Value = Request> {
    let client = prop_oneof![8 => Just(1), 4 => Just(2), 1 => Just(3), 1 => Just(-1)];
    let currency = prop_oneof![4 => Just("USD"), 2 => Just("EUR"), 2 => Just("GBP"), 1 => Just("XXX")];
    let amount = prop_oneof![Just(100), Just(1_050), Just(99_999_999_999)];
    (client, currency, amount, 1..6_u128).prop_map(|(client, currency, amount, key)| Request {
        client,
        currency,
        amount,
        key,
    })
}

pub(super) fn satoshis(max: i64) -> impl Strategy<Value = i64> {
    // The whole cap, and one satoshi less, to find wrong comparisons.
    let whole = 10_000_000_000;
    prop_oneof![20 => 1..=max, 1 => Just(whole), 1 => Just(whole - 1), 1 => Just(1)]
}

pub(super) fn batch() -> impl Strategy<Value = Vec<Draft>> {
    // Batches that fit as a whole, that fill the book gradually, and that rarely fit.
    prop_oneof![Just(1_000), Just(300_000_000), Just(10_000_000_000)].prop_flat_map(|max| {
        let draft = (request(), any::<bool>(), satoshis(max), any::<bool>()).prop_map(
            |(request, trailing_zeros, satoshis, traced)| Draft {
                request,
                trailing_zeros,
                satoshis,
                traced,
                external_id: Uuid::new_v4(),
            },
        );
        vec(draft, 0..=40)
    })
}

/// What happens to a book.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Accept {
        drafts: Vec<Draft>,
        client_limit: Option<Decimal>,
    },
    /// Voids the order at this place, counted round the orders that are there.
    Void(usize),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![
        3 => Just(None),
        2 => satoshis(10_000_000_000).prop_map(|limit| Some(Decimal::new(limit, 8))),
        1 => (1..3_000_i64).prop_map(|limit| Some(Decimal::new(limit, 8))),
    ];
    let accept = (batch(), limit).prop_map(|(drafts, client_limit)| Step::Accept { drafts, client_limit });
    prop_oneof![3 => accept, 2 => any::<usize>().prop_map(Step::Void)]
}
