//! What an order takes: of processors, of disks, of the network; and what it costs to tell Fluentd of it.

mod events;

use std::time::Duration;

use cluster::Cluster;

use crate::bench::Bench;
use crate::commits::{self, newest};
use crate::figures::{Figures, figure};
use crate::groups::CONNECTIONS;
use crate::spent::{self, Reported, Spent};
use crate::wrk::{Ask, Load};

pub(super) const NAME: &str = "per_order";

const MODELS: [&str; 2] = ["write model", "read model"];

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.fresh_cluster().await?;
    spent::count_statements(&cluster).await?;
    if !bench.quick {
        place_orders(bench, &cluster, "warm-up", bench.duration()).await?;
    }
    // It leaves services that have just been started: their sessions count statements, and what those of before counted is told when they end.
    events::measure(bench, &cluster).await?;

    let from = newest(&cluster).await?;
    let reported_before = Reported::so_far(&cluster).await?;
    let before = Spent::so_far(&cluster).await?;
    let duration = bench.duration() * if bench.quick { 1 } else { 3 };
    place_orders(bench, &cluster, "counted", duration).await?;
    let after = Spent::so_far(&cluster).await?;
    let reported_after = Reported::to_the_end(&cluster).await?;
    let orders = orders_since(&cluster, from).await?;

    let figures = &mut bench.figures;
    figures.add(NAME, "orders counted", orders, "");
    add_spent(figures, orders, &before, &after);
    add_reported(figures, orders, reported_before, reported_after);
    Ok(())
}

/// Until they are projected. Orders a second.
async fn place_orders(
    bench: &mut Bench,
    cluster: &Cluster,
    what: &str,
    duration: Duration,
) -> anyhow::Result<f64> {
    let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, duration);
    let outcome = bench
        .place_orders(cluster, &format!("{NAME}, {what}"), load)
        .await?;
    Ok(outcome.per_second())
}

async fn orders_since(cluster: &Cluster, id: i64) -> anyhow::Result<f64> {
    Ok(figure(commits::orders_since(cluster, id).await?))
}

fn add_spent(figures: &mut Figures, orders: f64, before: &Spent, after: &Spent) {
    let mut all = 0.0;
    for ((name, before), (_, after)) in before.cpu.iter().zip(&after.cpu) {
        let each_us = after.saturating_sub(*before).as_secs_f64() * 1e6 / orders;
        all += each_us;
        figures.add(NAME, format!("CPU, {name}"), each_us, "µs");
    }
    figures.add(NAME, "CPU, all of these", all, "µs");
    for ((model, before), after) in MODELS.iter().zip(before.models).zip(after.models) {
        let log_bytes = figure(after.log_bytes - before.log_bytes) / orders;
        let statements = figure(after.statements - before.statements) / orders;
        figures.add(NAME, format!("WAL, {model}"), log_bytes, "bytes");
        figures.add(NAME, format!("statements, {model}"), statements, "");
    }
}

fn add_reported(figures: &mut Figures, orders: f64, before: Reported, after: Reported) {
    for ((model, before), after) in MODELS.iter().zip(before.flushes).zip(after.flushes) {
        let flushes = figure(after - before) / orders;
        figures.add(NAME, format!("fsyncs of the WAL, {model}"), flushes, "");
    }
    for (what, before, after) in [
        ("received", before.broker_received, after.broker_received),
        ("sent", before.broker_sent, after.broker_sent),
    ] {
        // A connection that was lost meanwhile takes its count with it.
        let bytes = figure(after.saturating_sub(before)) / orders;
        figures.add(NAME, format!("broker, {what}"), bytes, "bytes");
    }
}
