//! How the cost of an order grows with the number of stored orders: compared in turns with databases that were empty at first, both for the
//! services and for the bare server.

mod book;

use cluster::Cluster;

use crate::bench::{BATCH, Bench};
use crate::figures::{median, megabytes};
use crate::history;
use book::{Book, Turn};

/// Names and numbers of stored orders, and the number of turns. The median of the turns counts.
const STORED: [(&str, i64, usize); 2] = [("1 M", 1_000_000, 3), ("10 M", 10_000_000, 7)];
const STORED_QUICK: [(&str, i64, usize); 1] = [("100 k", 100_000, 1)];

pub(super) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    // A fresh cluster, which contains only the orders of this group.
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
        // They alternate in being first, so that a trend of the machine favours neither.
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
        bench.figures.add_against(name, (with_many?, unit), against);
        Ok(())
    };
    add(name.clone(), "/s", |turn| turn.orders_per_second)?;
    let bare = format!("{name}: the bare server, `pgbench`, 1 client, `accept_orders` with {BATCH}");
    add(bare, "/s", |turn| turn.bare_per_second)?;
    let log = format!("{name}: WAL of an order, both models");
    add(log, "bytes", |turn| turn.log_bytes_per_order)?;
    let bytes = history::size(large.write_model()).await? + history::size(large.read_model()).await?;
    let size = megabytes(u64::try_from(bytes)?);
    bench.figures.add(format!("{name}, both databases"), size, "MB");
    Ok(())
}
