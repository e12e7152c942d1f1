//! Pages, and walking from one to the next.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, cluster, external_id, get, insert, page_after};

fn ids(newest_first: impl Iterator<Item = i64>) -> Vec<String> {
    newest_first.map(external_id).collect()
}

fn last_reference(answer: &Answer) -> Option<&str> {
    answer.body.get("last_reference").and_then(Value::as_str)
}

#[tokio::test]
async fn without_orders_the_page_has_no_rows_and_no_reference() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let answer = get(&cluster, "/buy_orders").await?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, json!({"rows": [], "last_reference": null}));
    assert_eq!(answer.header("link"), None);
    Ok(())
}

#[tokio::test]
async fn a_row_has_every_digit_of_its_order() -> anyhow::Result<()> {
    const ROWS: &str = "
        INSERT INTO buy_order_read_model VALUES
        (7, '3b14efb6-041f-4d31-b35a-37c82333af36', 1, '2026-11-23 16:37:32.5+01', 1, 'USD', 123.4, 48478.88, 0.00254647),
        (6, '3b14efb6-041f-4d31-b35a-37c82333af35', 1, '2026-11-23 15:37:32Z', 3, 'EUR', 999999999.99,
         999999999999.99999999, 0.00000001)";
    let cluster = cluster().await?;
    sqlx::query(ROWS).execute(cluster.read_model()).await?;
    let answer = get(&cluster, "/buy_orders").await?;
    let wanted = json!({
        "rows": [
            {
                "id": "3b14efb6-041f-4d31-b35a-37c82333af36", "created_at": "2026-11-23T15:37:32.500000Z",
                "currency": "USD", "currency_amount": "123.40", "btc_rate": "48478.88000000", "btc_amount": "0.00254647"
            },
            {
                "id": "3b14efb6-041f-4d31-b35a-37c82333af35", "created_at": "2026-11-23T15:37:32.000000Z",
                "currency": "EUR", "currency_amount": "999999999.99", "btc_rate": "999999999999.99999999",
                "btc_amount": "0.00000001"
            }
        ],
        "last_reference": "3b14efb6-041f-4d31-b35a-37c82333af35"
    });
    assert_eq!(answer.body, wanted);
    Ok(())
}

#[tokio::test]
async fn ten_orders_are_a_page_unless_another_size_is_asked_for() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=1001).await?;
    assert_eq!(get(&cluster, "/buy_orders").await?.ids(), ids((992..=1001).rev()));
    assert_eq!(
        get(&cluster, "/buy_orders?page_size=1").await?.ids(),
        ids(std::iter::once(1001))
    );
    assert_eq!(
        get(&cluster, "/buy_orders?page_size=1000").await?.ids(),
        ids((2..=1001).rev())
    );
    Ok(())
}

#[tokio::test]
async fn walking_while_orders_arrive_shows_each_older_order_once() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=95).await?;
    let mut seen = Vec::new();
    let mut path = "/buy_orders".to_owned();
    let mut newest = 95;
    loop {
        let answer = get(&cluster, &path).await?;
        seen.extend(answer.ids());
        let Some(reference) = last_reference(&answer) else {
            break;
        };
        assert_eq!(Some(reference), seen.last().map(String::as_str));
        path = format!("/buy_orders?last_reference={reference}");
        insert(cluster.read_model(), 1, newest + 1..=newest + 7).await?;
        newest += 7;
    }
    assert_eq!(seen, ids((1..=95).rev()));
    Ok(())
}

#[tokio::test]
async fn the_link_of_a_full_page_leads_to_the_next_and_ends_with_the_last() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=7).await?;
    let mut path = "/buy_orders?page_size=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let answer = get(&cluster, &path).await?;
        pages.push(answer.ids());
        let Some(link) = answer.header("link") else { break };
        let target = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(r#">; rel="next""#));
        let target = target.unwrap_or_else(|| panic!("not a link to a next page: {link}"));
        // Relative to the request.
        assert!(target.starts_with('?'), "{link}");
        path = format!("/buy_orders{target}");
    }
    assert_eq!(
        pages,
        [ids((5..=7).rev()), ids((2..=4).rev()), ids(std::iter::once(1))]
    );
    Ok(())
}

#[tokio::test]
async fn after_the_oldest_order_comes_an_empty_page() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=2).await?;
    let last = get(&cluster, "/buy_orders?page_size=2").await?;
    assert!(
        last.header("link").is_some(),
        "a full page cannot know that it is the last"
    );
    let beyond = page_after(&cluster, 1, 2).await?;
    assert_eq!(beyond.status, StatusCode::OK);
    assert_eq!(beyond.body, json!({"rows": [], "last_reference": null}));
    assert_eq!(beyond.header("link"), None);
    Ok(())
}

#[tokio::test]
async fn a_voided_order_leaves_the_pages_and_stays_a_reference() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=6).await?;
    insert(cluster.read_model(), 2, 7..=7).await?;
    let before = get(&cluster, "/buy_orders?page_size=2").await?;
    assert_eq!(before.ids(), ids([6, 5].into_iter()));
    sqlx::query("UPDATE buy_order_read_model SET voided_at = now() WHERE id IN (3, 5, 7)")
        .execute(cluster.read_model())
        .await?;

    assert_eq!(
        get(&cluster, "/buy_orders").await?.ids(),
        ids([6, 4, 2, 1].into_iter())
    );
    // The client stands on the order that was voided: it misses none and sees none twice.
    let answer = page_after(&cluster, 5, 2).await?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.ids(), ids([4, 2].into_iter()));
    let stranger = page_after(&cluster, 7, 2).await?;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND, "another client's");
    Ok(())
}

#[tokio::test]
async fn orders_of_another_client_are_neither_shown_nor_known() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=3).await?;
    insert(cluster.read_model(), 2, 4..=6).await?;
    insert(cluster.read_model(), 1, 7..=7).await?;
    assert_eq!(
        get(&cluster, "/buy_orders").await?.ids(),
        ids([7, 3, 2, 1].into_iter())
    );
    let stranger = page_after(&cluster, 5, 10).await?;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn a_reference_may_be_written_in_any_form_of_a_uuid() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 10..=11).await?;
    for reference in [external_id(11).to_uppercase(), external_id(11).replace('-', "")] {
        let answer = get(&cluster, &format!("/buy_orders?last_reference={reference}")).await?;
        assert_eq!(answer.ids(), [external_id(10)], "{reference}");
    }
    Ok(())
}

#[tokio::test]
async fn each_page_asked_for_is_an_event() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    insert(cluster.read_model(), 1, 1..=2).await?;
    page_after(&cluster, 2, 5).await?;
    get(&cluster, "/buy_orders").await?;
    let mut events = Vec::new();
    cluster::wait_until(
        "both events are written",
        std::time::Duration::from_secs(30),
        async || {
            events = cluster.logs(cluster::Service::FetchBuyOrders);
            events.retain(|event| event.get("event") == Some(&json!("buy_orders_page_requested")));
            Ok(events.len() == 2)
        },
    )
    .await?;
    let fields = |event: &Value| {
        (
            event.get("client_id").cloned(),
            event.get("page_size").cloned(),
            event.get("last_reference").cloned(),
        )
    };
    let of = |index: usize| events.get(index).map(fields);
    assert_eq!(
        of(0),
        Some((Some(json!(1)), Some(json!(5)), Some(json!(external_id(2)))))
    );
    assert!(
        matches!(of(1), Some((Some(_), Some(size), None | Some(Value::Null))) if size == json!(10)),
        "{:?}",
        of(1)
    );
    Ok(())
}
