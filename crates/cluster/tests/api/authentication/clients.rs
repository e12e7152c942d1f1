//! Clients see and repeat only their own orders.

use super::*;

#[tokio::test]
async fn another_clients_reference_is_404() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let second = token_of(&cluster, new_client(&cluster).await?)?;
    let first = token_of(&cluster, 1)?;
    let order = put(&cluster, &first, &new_order("USD", "1.00")).await?;
    is_on_the_page(&cluster, &first, order.order_id()).await?;

    let reference = format!("last_reference={}", order.order_id());
    let own = page(&cluster, &first, &reference).await?;
    assert_eq!((own.status, &own.body["rows"]), (200, &json!([])));
    let others = page(&cluster, &second, &reference).await?;
    let unknown = page(
        &cluster,
        &second,
        "last_reference=3b14efb6-041f-4d31-b35a-37c82333af36",
    )
    .await?;
    assert_eq!(others.status, 404);
    // It cannot be told from one that does not exist.
    assert_eq!(others.body, unknown.body);
    assert_eq!(page(&cluster, &second, "").await?.body["rows"], json!([]));
    Ok(())
}

#[tokio::test]
async fn another_clients_position_cannot_be_told_from_one_that_does_not_exist() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let second = token_of(&cluster, new_client(&cluster).await?)?;
    let first = token_of(&cluster, 1)?;
    let order = put(&cluster, &first, &new_order("USD", "1.00")).await?;
    is_on_the_page(&cluster, &first, order.order_id()).await?;

    let page_with = async |token: &str, position: &str| {
        let url = cluster.url(FetchBuyOrders) + "/buy_orders";
        let asked = stranger()?.get(url).headers(bearer(token)?);
        send(asked.header("order-position", position)).await
    };
    let position = order.header("order-position");
    assert_eq!(page_with(&first, position).await?.status, 200);
    let others = page_with(&second, position).await?;
    let unknown = page_with(&second, "3b14efb6-041f-4d31-b35a-37c82333af36").await?;
    assert_eq!((others.status, &others.body), (503, &unknown.body));
    Ok(())
}

#[tokio::test]
async fn another_clients_key_is_another_order() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let second = token_of(&cluster, new_client(&cluster).await?)?;
    let first = token_of(&cluster, 1)?;
    let request = order_with_key("USD", "1.00", "5fa733ae-82b4-4ac0-8478-35ff30dae879");

    let of_first = put(&cluster, &first, &request).await?;
    let of_second = put(&cluster, &second, &request).await?;
    assert_eq!((of_first.status, of_second.status), (200, 200));
    assert_ne!(of_first.order_id(), of_second.order_id());
    assert!(!of_second.headers.contains_key("idempotent-replayed"));
    // With a quote at hand and, as btc_price is away and its quote gets old, without one.
    cluster.stop(BtcPrice).await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        for (token, order) in [(&first, &of_first), (&second, &of_second)] {
            let repeat = put(&cluster, token, &request).await?;
            assert_eq!(repeat.header("idempotent-replayed"), "true", "{repeat:?}");
            assert_eq!(repeat.body, order.body);
        }
    }
    for (token, own, others) in [(&first, &of_first, &of_second), (&second, &of_second, &of_first)] {
        is_on_the_page(&cluster, token, own.order_id()).await?;
        let page = page(&cluster, token, "").await?.body.to_string();
        assert!(!page.contains(others.order_id()), "{page}");
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_the_write_model_does_not_know_is_403() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let unknown = token_of(&cluster, 404)?;
    let known = token_of(&cluster, 1)?;
    // In one batch with an order of a client that is known.
    for _ in 0..10 {
        let (order, of_unknown) = (new_order("USD", "1.00"), new_order("USD", "1.00"));
        let (accepted, refused) = tokio::try_join!(
            put(&cluster, &known, &order),
            put(&cluster, &unknown, &of_unknown)
        )?;
        assert_eq!((accepted.status, refused.status), (200, 403), "{refused:?}");
        assert_eq!(refused.detail(), "client 404 is not known here");
    }
    assert_eq!(orders_in_the_book(&cluster).await?, 10);
    Ok(())
}
