//! How the cost of an order grows with the orders that are stored: beside a book that was empty, in turns; the same by the bare server.

mod book;

use cluster::Cluster;

use crate::bench::Bench;
use crate::figures::median;
use crate::groups::BATCH;
use crate::history;
use book::{Book, Turn};

pub(super) const NAME: &str = "growth";

/// How many are stored, in words and in digits, and how many turns each has. The median of the turns counts.
const STORED: [(&str, i64, usize); 2] = [("1 M", 1_000_000, 3), ("10 M", 10_000_000, 7)];
const STORED_QUICK: [(&str, i64, usize); 1] = [("100 k", 100_000, 1)];

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    // A fresh one, that is empty but for what is measured here.
    let empty = bench.fresh_cluster().await?;
    let large = bench.large_cluster().await?;
    let stored = if bench.quick {
        &STORED_QUICK[..]
    } else {
        &STORED[..]
    };
    for (name, orders, turns) in stored {
        history::fill(&large, *orders).await?;
        in_turns(bench, &empty, &large, name, *turns).await?;
    }
    Ok(())
}

async fn in_turns(
    bench: &mut Bench,
    empty: &Cluster,
    large: &Cluster,
    stored: &str,
    turns: usize,
) -> anyhow::Result<()> {
    let name = format!("{stored} orders stored");
    let mut none = Book::empty(empty).await?;
    let mut many = Book::of(large, name.clone());
    if !bench.quick {
        for book in [&none, &many] {
            book.warm_up(bench).await?;
        }
    }
    for turn in 0..turns {
        let mut books = [&mut none, &mut many];
        // Each is first in turn, so that a trend of the machine favours neither.
        if turn % 2 == 1 {
            books.reverse();
        }
        for book in books {
            book.take_turn(bench).await?;
        }
    }
    let mut add = |name: String, unit, of: fn(&Turn) -> f64| -> anyhow::Result<()> {
        let [with_none, with_many] = [&none, &many].map(|book| median(book.turns.iter().map(of)));
        let against = ("begun with none, in turns", with_none?);
        bench.figures.add_against(NAME, name, (with_many?, unit), against);
        Ok(())
    };
    add(name.clone(), "/s", |turn| turn.orders_per_second)?;
    let bare = format!("{name}: the bare server, `pgbench`, 1 client, `accept_orders` with {BATCH}");
    add(bare, "/s", |turn| turn.bare_per_second)?;
    let log = format!("{name}: WAL of an order, both models");
    add(log, "bytes", |turn| turn.log_bytes_per_order)?;
    let megabytes = megabytes(large).await?;
    bench
        .figures
        .add(NAME, format!("{name}, both databases"), megabytes, "MB");
    Ok(())
}

async fn megabytes(cluster: &Cluster) -> anyhow::Result<f64> {
    let bytes = history::size(cluster.write_model()).await? + history::size(cluster.read_model()).await?;
    Ok(f64::from(u32::try_from(bytes / 1_000_000)?))
}
