//! Family 9: Coinbase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::{Behaviour, Link, Options, Traffic};

use crate::scenario::Scenario;
use crate::stage::Stage;

const DISTURBED: Duration = Duration::from_secs(6);

pub(super) fn scenarios() -> Vec<Scenario> {
    let options = Options::default().with_links(&[Link::BtcPriceToCoinbase]);
    vec![Scenario::new(9, "coinbase", |stage| Box::pin(disturbed(stage))).with_options(options)]
}

async fn disturbed(stage: &mut Stage) -> anyhow::Result<()> {
    let cluster = Arc::clone(&stage.cluster);
    let link = cluster.link(Link::BtcPriceToCoinbase)?;
    for (kind, traffic) in [
        ("Coinbase: refused", Traffic::Refuse),
        ("Coinbase: slow-loris, 20 bytes a second", Traffic::Throttle(20)),
    ] {
        let disturbed = async {
            link.set(traffic);
            Stage::last(DISTURBED).await;
            link.set(Traffic::Pass);
            Ok(())
        };
        stage.fault(kind, "", disturbed).await?;
    }
    let garbage = "\u{0}not { json".to_owned();
    for (kind, behaviour) in [
        ("Coinbase: 429 with `Retry-After`", Behaviour::RetryAfter(429, 3)),
        ("Coinbase: 500", Behaviour::Status(500)),
        ("Coinbase: never answers", Behaviour::Hang),
        ("Coinbase: garbage", Behaviour::Body(garbage)),
    ] {
        let disturbed = async {
            cluster.prices().answer_with(behaviour);
            Stage::last(DISTURBED).await;
            cluster.prices().answer_with(Behaviour::Rates);
            Ok(())
        };
        stage.fault(kind, "", disturbed).await?;
    }
    let flapping = async {
        let began = Instant::now();
        while began.elapsed() < DISTURBED {
            cluster.prices().answer_with(Behaviour::Status(503));
            Stage::last(Duration::from_secs(1)).await;
            cluster.prices().answer_with(Behaviour::Rates);
            Stage::last(Duration::from_secs(1)).await;
        }
        Ok(())
    };
    stage.fault("Coinbase: flapping each second", "", flapping).await
}
