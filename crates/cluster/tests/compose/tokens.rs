//! Tokens, where the services demand them.

use anyhow::ensure;

use crate::black_box::System;

pub(crate) async fn without_a_token_nobody_is_let_in(system: &System) -> anyhow::Result<()> {
    let order = cluster::new_order("USD", "0.01");
    let pages = format!("{}/buy_orders", system.fetch_buy_orders);
    for answer in [system.put(&order).await?, system.get(&pages).await?] {
        ensure!(answer.status == 401, "{answer:?}");
        ensure!(answer.header("www-authenticate") == Some("Bearer"), "{answer:?}");
    }
    Ok(())
}
