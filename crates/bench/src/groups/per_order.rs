//! The cost of an order: CPU, disk and network, and the cost of its events to Fluentd.

mod bare;
mod events;

use crate::bench::{Bench, CONNECTIONS};
use crate::commits;
use crate::figures::{Figures, figure};
use crate::spent::{self, Reported, Spent};
use crate::wrk::{Ask, Load};

const MODELS: [&str; 2] = ["write model", "read model"];

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let cluster = bench.fresh_cluster().await?;
    bare::measure(bench, &cluster).await?;
    spent::count_statements(&cluster).await?;
    if !bench.quick {
        let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, bench.duration());
        bench.place_orders(&cluster, "per_order, warm-up", load).await?;
    }
    // Afterwards the services are freshly started: their sessions count statements, and the counts of the earlier sessions were reported.
    events::measure(bench, &cluster).await?;

    let from = commits::newest(&cluster).await?;
    let reported_before = Reported::so_far(&cluster).await?;
    let before = Spent::so_far(&cluster).await?;
    let duration = bench.duration() * if bench.quick { 1 } else { 3 };
    let load = Load::unpaced(Ask::NewOrders, CONNECTIONS, duration);
    bench.place_orders(&cluster, "per_order, counted", load).await?;
    let after = Spent::so_far(&cluster).await?;
    let reported_after = Reported::to_the_end(&cluster).await?;
    let orders = figure(commits::orders_since(&cluster, from).await?);

    let figures = &mut bench.figures;
    figures.add("orders counted", orders, "");
    add_spent(figures, orders, &before, &after);
    add_reported(figures, orders, reported_before, reported_after);
    Ok(())
}

fn add_spent(figures: &mut Figures, orders: f64, before: &Spent, after: &Spent) {
    let mut all = 0.0;
    for ((name, before), (_, after)) in before.cpu.iter().zip(&after.cpu) {
        let each_us = after.saturating_sub(*before).as_secs_f64() * 1e6 / orders;
        all += each_us;
        figures.add(format!("CPU, {name}"), each_us, "µs");
    }
    figures.add("CPU, all of these", all, "µs");
    for ((model, before), after) in MODELS.iter().zip(before.models).zip(after.models) {
        let log_bytes = figure(after.log_bytes - before.log_bytes) / orders;
        let statements = figure(after.statements - before.statements) / orders;
        figures.add(format!("WAL, {model}"), log_bytes, "bytes");
        figures.add(format!("statements, {model}"), statements, "");
    }
}

fn add_reported(figures: &mut Figures, orders: f64, before: Reported, after: Reported) {
    for ((model, before), after) in MODELS.iter().zip(before.flushes).zip(after.flushes) {
        let flushes = figure(after - before) / orders;
        figures.add(format!("fsyncs of the WAL, {model}"), flushes, "");
    }
    for (what, before, after) in [
        ("received", before.broker_received, after.broker_received),
        ("sent", before.broker_sent, after.broker_sent),
    ] {
        // The count of a connection that was lost meanwhile is gone.
        let bytes = figure(after.saturating_sub(before)) / orders;
        figures.add(format!("broker, {what}"), bytes, "bytes");
    }
}
