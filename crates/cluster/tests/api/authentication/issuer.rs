//! Keys come and go, and so does the issuer.

use super::*;

#[tokio::test]
async fn keys_rotate_while_orders_come() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let issuer = cluster.issuer()?;
    let (old, new) = (&issuer.key, SigningKey::ed25519()?);
    let claims = claims(1, ALL_SCOPES, 3600)?;
    let (by_old, by_new) = (old.sign(&claims)?, new.sign(&claims)?);
    let orders = async |token: &str| {
        let began = Instant::now();
        let mut placed = BTreeSet::new();
        while began.elapsed() < Duration::from_secs(2) {
            let order = put(&cluster, token, &new_order("USD", "0.01")).await?;
            ensure!(order.status == 200, "{order:?}");
            placed.insert(order.order_id().to_owned());
        }
        Ok::<_, anyhow::Error>(placed)
    };
    // As issuers do it: the new key is shown before it signs, and the old one until its last token has expired.
    let mut placed = orders(&by_old).await?;
    issuer.keys_server.publish([old, &new]);
    let (of_old, of_new) = tokio::try_join!(orders(&by_old), orders(&by_new))?;
    placed.extend(of_old.into_iter().chain(of_new));
    issuer.keys_server.publish([&new]);
    placed.extend(orders(&by_new).await?);
    assert_eq!(orders_in_the_book(&cluster).await?, i64::try_from(placed.len())?);

    // A key that was withdrawn is not accepted for long, and what it had verified is forgotten with it.
    let unknown = SigningKey::es256()?.sign(&claims)?;
    wait_until("the old key is forgotten", LIMIT, async || {
        ensure!(
            statuses(&cluster, &unknown).await? == [401, 401],
            "an unknown key is accepted"
        );
        Ok(statuses(&cluster, &by_old).await? == [401, 401])
    })
    .await?;
    assert_eq!(statuses(&cluster, &by_new).await?, [200, 200]);
    Ok(())
}

#[tokio::test]
async fn the_issuer_may_be_away() -> anyhow::Result<()> {
    let cluster = cluster_with_tokens().await?;
    let issuer = cluster.issuer()?;
    let token = issuer.token()?;
    assert_eq!(statuses(&cluster, &token).await?, [200, 200]);

    // Keys that are known stay.
    issuer.keys_server.go_away();
    let unknown = SigningKey::es256()?;
    let by_unknown = unknown.sign(&claims(1, ALL_SCOPES, 3600)?)?;
    let asked = issuer.keys_server.requests();
    wait_until("the issuer was asked meanwhile", LIMIT, async || {
        ensure!(
            statuses(&cluster, &by_unknown).await? == [401, 401],
            "an unknown key is accepted"
        );
        ensure!(
            statuses(&cluster, &token).await? == [200, 200],
            "a known key is not accepted"
        );
        Ok(issuer.keys_server.requests() > asked + 1)
    })
    .await?;

    // Without any key nobody is let in, and the service says that it is not ready.
    for service in [CreateBuyOrder, FetchBuyOrders] {
        cluster.stop(service).await?;
        cluster.start_service(service).await?;
        let url = cluster.url(service);
        let ready = stranger()?.get(url.clone() + "/readyz").send().await?;
        assert_eq!(ready.status(), 503);
        assert!(ready.text().await?.contains("issuer_keys"));
    }
    let order = put(&cluster, &token, &new_order("USD", "1.00")).await?;
    assert_eq!(
        (order.status, order.header("retry-after")),
        (503, "1"),
        "{order:?}"
    );
    assert_eq!(
        order.detail(),
        "tokens cannot be verified at the moment, try again shortly"
    );
    assert_eq!(page(&cluster, &token, "").await?.status, 503);

    issuer.keys_server.publish([&issuer.key, &unknown]);
    wait_until("the services found the keys", LIMIT, async || {
        Ok(statuses(&cluster, &token).await? == [200, 200])
    })
    .await?;
    assert_eq!(statuses(&cluster, &by_unknown).await?, [200, 200]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_at_most_once_a_minute() -> anyhow::Result<()> {
    let began = Instant::now();
    // With the default.
    let cluster = Cluster::start(Options::only(&[BtcPrice, CreateBuyOrder]).with_tokens()).await?;
    let issuer = cluster.issuer()?;
    wait_until("the keys were read", LIMIT, async || {
        Ok(issuer.keys_server.requests() == 1)
    })
    .await?;
    for _ in 0..100 {
        let token = SigningKey::es256()?.sign(&claims(1, ALL_SCOPES, 3600)?)?;
        assert_eq!(
            put(&cluster, &token, &new_order("USD", "1.00")).await?.status,
            401
        );
    }
    let asked = issuer.keys_server.requests();
    ensure!(began.elapsed() < Duration::from_secs(60), "too slow to tell");
    assert_eq!(asked, 1);
    Ok(())
}

#[tokio::test]
async fn keys_may_come_from_a_file_that_is_replaced() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("jwks.json");
    let (old, new) = (SigningKey::es256()?, SigningKey::es256()?);
    std::fs::write(&file, jwks([&old]))?;
    let options = options()
        .with_env(CreateBuyOrder, "AUTH_JWKS_URL", "")
        .with_env(FetchBuyOrders, "AUTH_JWKS_URL", "")
        .with_env(CreateBuyOrder, "AUTH_JWKS_FILE", file.display().to_string())
        .with_env(FetchBuyOrders, "AUTH_JWKS_FILE", file.display().to_string());
    let cluster = Cluster::start(options).await?;
    let claims = claims(1, ALL_SCOPES, 3600)?;
    let (by_old, by_new) = (old.sign(&claims)?, new.sign(&claims)?);
    assert_eq!(statuses(&cluster, &by_old).await?, [200, 200]);
    assert_eq!(statuses(&cluster, &by_new).await?, [401, 401]);
    // A file that cannot be read for a moment changes nothing.
    std::fs::remove_file(&file)?;
    wait_until("both services have missed the file", LIMIT, async || {
        ensure!(
            statuses(&cluster, &by_new).await? == [401, 401],
            "an unknown key is accepted"
        );
        let missed = |service| {
            cluster
                .output(service)
                .iter()
                .any(|line| line.contains("issuer_keys_not_read"))
        };
        Ok(missed(CreateBuyOrder) && missed(FetchBuyOrders))
    })
    .await?;
    assert_eq!(statuses(&cluster, &by_old).await?, [200, 200]);
    std::fs::write(&file, jwks([&new]))?;
    wait_until("the new key is known", LIMIT, async || {
        Ok(statuses(&cluster, &by_new).await? == [200, 200])
    })
    .await?;
    assert_eq!(statuses(&cluster, &by_old).await?, [401, 401]);
    Ok(())
}
