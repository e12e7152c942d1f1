//! What clients at their limit, and voids, do to the orders of others.

use cluster::plans::keep_work_within;

use super::*;

/// Whatever a full client sends, the orders of others in its batch are decided together.
#[tokio::test]
async fn a_client_at_its_limit_holds_nobody_up_and_gets_room_back_by_a_void() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    add_second_client(&mut connection).await?;
    let mut model = Model::default();
    let limit = Some(Decimal::new(1_000, 8));
    let of = |client, key, satoshis| {
        let mut draft = draft(key, satoshis);
        draft.request.client = client;
        draft
    };
    // Orders that were accepted without a limit count.
    compare(&mut connection, &mut model, &[of(1, 1, 400), of(1, 2, 500)]).await?;
    let mixed: Vec<Draft> = (0..100)
        .map(|key| of(1 + i64::from(key % 2 == 0), 100 + key, 101))
        .collect();
    compare_within(&mut connection, &mut model, &mixed, limit).await?;
    assert_eq!(
        model.orders.len(),
        2 + 9,
        "nine of 101 satoshis are below the limit of the second client"
    );
    compare_within(&mut connection, &mut model, &[of(1, 3, 100), of(1, 4, 1)], limit).await?;
    assert_eq!(model.orders.len(), 12);

    // A void of a counted order, of one that is not counted yet, and both again.
    compare_voids(&mut connection, &mut model, 1).await?;
    compare(&mut connection, &mut model, &[of(1, 5, 200), of(2, 5, 1)]).await?;
    compare_voids(&mut connection, &mut model, 12).await?;
    compare_within(
        &mut connection,
        &mut model,
        &[of(1, 6, 501), of(1, 7, 500), of(1, 8, 1)],
        limit,
    )
    .await?;
    assert_eq!(model.orders.len(), 15);
    Ok(())
}

/// A client near its limit cannot have the orders of others decided one at a time: neither by repeats, nor by orders that do not fit.
#[tokio::test]
async fn what_a_client_near_its_limit_sends_does_not_slow_the_orders_of_others() -> anyhow::Result<()> {
    const ONE_BY_ONE: &str = "CROSS JOIN LATERAL accept_orders(";
    let cluster = databases().await?;
    let mut connection = cluster.write_model().acquire().await?;
    add_second_client(&mut connection).await?;
    let limit = Some(Decimal::new(1_000, 8));
    let of = |client, key, satoshis| {
        let mut draft = draft(key, satoshis);
        draft.request.client = client;
        draft
    };
    let mut known: Vec<Draft> = (0..10).map(|key| of(1, key, 10)).collect();
    known.push(of(1, 10, 850));
    accept_within(&mut connection, &known, limit).await?;
    // 50 are left. Repeats of 10 each, together 100; an order of 200, one of 50, and those of another client.
    let mut drafts: Vec<Draft> = (0..10).map(|key| of(1, key, 10)).collect();
    drafts.extend([of(1, 20, 200), of(1, 21, 50), of(2, 1, 1), of(2, 2, 1)]);
    let mut answers = Vec::new();
    let texts = keep_work_within(&mut connection, 100, async |connection| {
        let accepted = accept_within(connection, &drafts, limit).await;
        answers = accepted.map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(())
    })
    .await?;
    let verdicts: Vec<&str> = answers.iter().map(|answer| answer.verdict.as_str()).collect();
    let new = ["over_client_limit", "created", "created", "created"];
    assert_eq!(verdicts, [&["repeated"; 10][..], &new].concat());
    assert!(texts.iter().all(|text| !text.contains(ONE_BY_ONE)), "{texts:#?}");
    Ok(())
}

#[tokio::test]
async fn a_void_and_the_orders_that_wait_for_its_room_take_turns() -> anyhow::Result<()> {
    let cluster = databases().await?;
    let pool = cluster.write_model();
    let (mut first, mut second) = (pool.acquire().await?, pool.acquire().await?);
    let full = draft(1, 10_000_000_000);
    accept(&mut first, &[full]).await?;
    let mut voiding = pool.begin().await?;
    let voided = void(&mut voiding, full.external_id, "too much").await?;
    assert_eq!(voided.verdict, "voided");
    // Both wait until the void is committed.
    let orders = [draft(2, 5_000_000_000), draft(3, 5_000_000_000)];
    let commit = async {
        wait_until("both wait for the lock", Duration::from_secs(60), async || {
            Ok(blocked_sessions(pool, "_order").await?.len() == 2)
        })
        .await?;
        Ok(voiding.commit().await?)
    };
    let (accepted, again, ()) = tokio::try_join!(
        accept(&mut first, &orders),
        void(&mut second, full.external_id, "again"),
        commit
    )?;
    assert_eq!(again.verdict, "voided_before");
    let verdicts: Vec<&str> = accepted.iter().map(|answer| answer.verdict.as_str()).collect();
    assert_eq!(verdicts, ["created", "created"]);
    Ok(())
}
