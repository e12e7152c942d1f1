//! The verdicts of the write model on drafts of one call: one each, in their order.

use cluster::{Cluster, Options};
use create_buy_order::db;
use create_buy_order::order::{Draft, Order, RequestIdentity, Verdict};

use super::book;
use super::plans::draft;

async fn accept(cluster: &Cluster, drafts: &[Draft]) -> anyhow::Result<Vec<Verdict>> {
    let mut connection = cluster.write_model().acquire().await?;
    Ok(db::accept_orders(&mut connection, drafts, None).await?)
}

fn of_btc(btc_amount: &str) -> anyhow::Result<Draft> {
    Ok(Draft {
        btc_amount: btc_amount.parse()?,
        ..draft()?
    })
}

fn of_client(client_id: i64) -> anyhow::Result<Draft> {
    let draft = draft()?;
    Ok(Draft {
        identity: RequestIdentity {
            client_id,
            ..draft.identity
        },
        ..draft
    })
}

fn created<'a>(verdict: &'a Verdict, draft: &Draft) -> &'a Order {
    match verdict {
        Verdict::Created(order) if order.external_id == draft.external_id => order,
        other => panic!("{other:?} of {draft:?}"),
    }
}

#[tokio::test]
async fn an_order_of_an_unknown_client_is_refused_alone_and_takes_no_room() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let unknown = Draft {
        btc_amount: "30".parse()?,
        ..of_client(2)?
    };
    let drafts = [of_btc("40")?, unknown, of_btc("25")?];
    let verdicts = accept(&cluster, &drafts).await?;
    created(&verdicts[0], &drafts[0]);
    assert_eq!(verdicts[1], Verdict::NoClient);
    created(&verdicts[2], &drafts[2]);

    // Not all fit, so they are decided one at a time: 70 and 40 are too much, 35 are not.
    let unknown = Draft {
        btc_amount: "70".parse()?,
        ..of_client(2)?
    };
    let drafts = [of_btc("40")?, unknown, of_btc("35")?];
    let verdicts = accept(&cluster, &drafts).await?;
    assert_eq!(verdicts[0], Verdict::OverCap);
    created(&verdicts[2], &drafts[2]);
    assert_eq!(book(&cluster).await?, (3, 100.into()));
    assert_eq!(verdicts[1], Verdict::NoClient, "whether it would fit or not");
    Ok(())
}

#[tokio::test]
async fn equal_requests_that_are_handed_over_together_are_one_order() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let first = of_btc("10")?;
    let same = Draft {
        identity: first.identity,
        ..of_btc("10")?
    };
    let drafts = [first, same, of_btc("1")?];
    let verdicts = accept(&cluster, &drafts).await?;
    let order = created(&verdicts[0], &drafts[0]);
    assert_eq!(verdicts[1], Verdict::Repeated(order.clone()));
    created(&verdicts[2], &drafts[2]);
    assert_eq!(book(&cluster).await?, (2, 11.into()));

    // Also when only one of the two fits.
    let first = of_btc("60")?;
    let same = Draft {
        identity: first.identity,
        ..of_btc("60")?
    };
    let drafts = [first, same];
    let verdicts = accept(&cluster, &drafts).await?;
    let order = created(&verdicts[0], &drafts[0]);
    assert_eq!(verdicts[1], Verdict::Repeated(order.clone()));
    assert_eq!(book(&cluster).await?, (3, 71.into()));
    Ok(())
}

#[tokio::test]
async fn of_orders_that_do_not_all_fit_each_is_decided_in_its_turn() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let drafts = [
        "60",
        "41",
        "39.99999999",
        "0.00000002",
        "0.00000001",
        "0.00000001",
    ]
    .map(of_btc);
    let drafts: Vec<Draft> = drafts.into_iter().collect::<Result<_, _>>()?;
    let verdicts = accept(&cluster, &drafts).await?;
    let fit: Vec<bool> = verdicts
        .iter()
        .map(|verdict| matches!(verdict, Verdict::Created(_)))
        .collect();
    assert_eq!(fit, [true, false, true, false, true, false], "{verdicts:?}");
    assert_eq!(book(&cluster).await?, (3, 100.into()));
    let ids: Vec<i64> = [0, 2, 4]
        .map(|index| created(&verdicts[index], &drafts[index]).id)
        .into();
    assert!(ids.is_sorted(), "{ids:?}");

    // After a lost answer, the same call gets the same one.
    assert_eq!(accept(&cluster, &drafts).await?, verdicts);
    assert_eq!(book(&cluster).await?, (3, 100.into()));
    assert_eq!(super::count(&cluster, "outbox").await?, 3);
    Ok(())
}

#[tokio::test]
async fn the_same_call_again_changes_nothing_and_has_the_same_answer() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::only(&[])).await?;
    let drafts = [of_btc("1")?, of_client(7)?, of_btc("2")?];
    let verdicts = accept(&cluster, &drafts).await?;
    assert_eq!(accept(&cluster, &drafts).await?, verdicts);
    assert_eq!(book(&cluster).await?, (2, 3.into()));
    assert_eq!(super::count(&cluster, "outbox").await?, 2);
    Ok(())
}
