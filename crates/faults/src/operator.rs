//! An operator, who voids orders with `create_buy_order void` and records what it says.

use std::collections::HashSet;
use std::process::Command;

use anyhow::{bail, ensure};
use cluster::{Cluster, Ended};
use uuid::Uuid;

use crate::ledger::{Identity, Outcome};
use crate::load::{MAX_SMALL_ORDER, Shared};
use crate::voids::Answer;

/// A reason for a void: no two are equal. Some have what a reason may contain: quotes, the marks of our own messages, other letters, and 500
/// characters.
#[must_use]
pub fn reason(random: &mut fastrand::Rng) -> String {
    const LONGEST: usize = 500;
    let number = format!("{:08x}", random.u32(..));
    match random.u8(..5) {
        0 => format!("it was voided: twice ({number})"),
        1 => format!("'; DROP TABLE buy_order; -- {number}"),
        2 => format!("Kundin: \"1 statt 0,1 ₿\" |void|\\u0000|%s {number}"),
        3 => "ä".repeat(LONGEST - number.len()) + &number,
        _ => format!("fat finger {number}"),
    }
}

/// Voids an order, and returns what the command said.
///
/// # Errors
/// When the command cannot be started or does not end, or says something else than it should.
pub async fn void(cluster: &Cluster, shared: &Shared, id: Uuid, reason: &str) -> anyhow::Result<Answer> {
    run(shared, cluster.void_command(&id.to_string(), reason)?, id, reason).await
}

/// The same with this command, which voids that order for that reason.
///
/// # Errors
/// As there.
pub async fn run(shared: &Shared, command: Command, id: Uuid, reason: &str) -> anyhow::Result<Answer> {
    let number = shared.voids.begin(id, reason);
    let answer = Answer::of(&Ended::of(command, "").await?, id, reason)?;
    shared.voids.end(number, answer.clone());
    Ok(answer)
}

/// An order that may be voided.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its external id.
    pub id: Uuid,
    /// What the client asked for.
    pub identity: Identity,
}

/// The acknowledged orders that no command was to void yet, oldest first. Without large ones: the cap must stay near.
#[must_use]
pub fn candidates(shared: &Shared) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let entries = shared.ledger.entries().into_iter();
    let orders = entries.filter_map(|entry| match entry.outcome {
        Outcome::Acknowledged(order) => Some(Candidate {
            id: order.id,
            identity: entry.identity,
        }),
        _ => None,
    });
    orders
        .filter(|order| order.identity.cents <= MAX_SMALL_ORDER)
        .filter(|order| seen.insert(order.id) && !shared.voids.may_be_voided(order.id))
        .collect()
}

/// The latest of them. Some are not projected yet.
///
/// # Errors
/// When there are fewer.
pub fn latest(shared: &Shared, count: usize) -> anyhow::Result<Vec<Candidate>> {
    let mut all = candidates(shared);
    ensure!(all.len() >= count, "only {} orders can be voided", all.len());
    Ok(all.split_off(all.len() - count))
}

/// Voids orders one after the other, every other one twice. Clients repeat each before and after.
///
/// # Errors
/// When a command does not void its order, although the write model is there.
pub async fn void_all(
    cluster: &Cluster,
    shared: &Shared,
    random: &mut fastrand::Rng,
    orders: &[Candidate],
) -> anyhow::Result<()> {
    for (number, Candidate { id, identity }) in orders.iter().enumerate() {
        let (amount, why) = (identity.amount(), reason(random));
        // Whichever comes first; the audit judges the answer.
        let repeated = shared.place(identity, &amount, number);
        let (_, voided) = tokio::join!(repeated, void(cluster, shared, *id, &why));
        let voided = voided?;
        ensure!(voided == Answer::Voided, "{id} was to be voided: {voided:?}");
        shared.place(identity, &identity.short_amount(), number + 1).await;
        if number % 2 == 0 {
            let again = void(cluster, shared, *id, &reason(random)).await?;
            ensure!(again.acknowledges(), "{id} was to be voided again: {again:?}");
        }
    }
    Ok(())
}

/// Repeats a command with an unknown outcome, with another reason, until it says that the order is voided.
///
/// # Errors
/// When it still does not, although the write model is there.
pub async fn repeat(
    cluster: &Cluster,
    shared: &Shared,
    order: &Candidate,
    reason: &str,
) -> anyhow::Result<Answer> {
    let answer = void(cluster, shared, order.id, reason).await?;
    if !answer.acknowledges() {
        bail!("{} was to be voided again: {answer:?}", order.id);
    }
    for replica in 0..2 {
        shared
            .place(&order.identity, &order.identity.amount(), replica)
            .await;
    }
    Ok(answer)
}
