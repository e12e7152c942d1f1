//! `GET /buy_orders`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use uuid::Uuid;

use super::{Pages as _, System, common, ensure_a_proper_walk, walk};

/// Enough for several pages.
const ORDERS: usize = 25;

pub(crate) async fn walking_the_pages_while_orders_arrive_shows_each_older_order_exactly_once(
    system: &System,
) -> anyhow::Result<()> {
    let mut older = Vec::new();
    for _ in 0..ORDERS {
        older.push(system.place("USD", "0.35").await?);
    }
    system.projected(&older).await?;
    let older = system.book().await?;

    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (system, done) = (system.clone(), Arc::clone(&done));
        async move {
            let mut placed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                placed.push(system.place("EUR", "0.36").await?);
            }
            anyhow::Ok(placed)
        }
    });
    let walks = async {
        for page_size in [1, 3, 7] {
            let rows = walk(system, page_size).await?;
            ensure_a_proper_walk(&rows)?;
            ensure!(
                common(&rows, &older) == older,
                "a walk by {page_size} missed or changed an older order"
            );
        }
        Ok(())
    };
    let outcome = walks.await;
    done.store(true, Ordering::Relaxed);
    let placed = writer.await??;
    outcome?;
    ensure!(!placed.is_empty(), "no order arrived during the walks");
    system.projected(&placed).await
}

pub(crate) async fn the_link_header_leads_through_all_pages(system: &System) -> anyhow::Result<()> {
    let mut placed = Vec::new();
    for _ in 0..ORDERS {
        placed.push(system.place("EUR", "0.37").await?);
    }
    system.projected(&placed).await?;
    let book = system.book().await?;

    let base = reqwest::Url::parse(&system.fetch_buy_orders)?;
    let mut rows = Vec::new();
    let mut next = Some(base.join("/buy_orders?page_size=9")?);
    while let Some(url) = next {
        let answer = system.get(url.as_str()).await?;
        let link = answer.header("link").map(str::to_owned);
        let page = answer.expect(200)?;
        let part = page["rows"].as_array().context("no rows")?;
        ensure!(
            link.is_some() == (part.len() == 9),
            "Link belongs to full pages alone: {link:?}, {} rows",
            part.len()
        );
        rows.extend(part.iter().cloned());
        next = link
            .map(|link| {
                let (target, _) = link
                    .strip_prefix('<')
                    .and_then(|link| link.split_once(">; rel=\"next\""))
                    .with_context(|| format!("no link to a next page: {link}"))?;
                anyhow::Ok(url.join(target)?)
            })
            .transpose()?;
    }
    ensure_a_proper_walk(&rows)?;
    ensure!(
        common(&rows, &book) == book,
        "the links do not lead to all orders"
    );
    Ok(())
}

pub(crate) async fn faulty_page_requests_are_refused(system: &System) -> anyhow::Result<()> {
    let rows = [
        ("page_size=x", "int_parsing", "page_size"),
        ("page_size=0", "greater_than_equal", "page_size"),
        ("page_size=-1", "greater_than_equal", "page_size"),
        ("page_size=1001", "less_than_equal", "page_size"),
        ("last_reference=x", "uuid_parsing", "last_reference"),
    ];
    for (query, kind, field) in rows {
        let detail = system.page(query).await?.expect(422)?["detail"].take();
        let item = &detail[0];
        ensure!(
            item["type"] == kind && item["loc"][0] == "query" && item["loc"][1] == field,
            "{query}: {detail}"
        );
    }
    let unknown = system
        .page(&format!("last_reference={}", Uuid::new_v4()))
        .await?
        .expect(404)?;
    ensure!(unknown["detail"].is_string(), "no sentence: {unknown}");
    Ok(())
}
