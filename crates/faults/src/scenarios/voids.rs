//! Family 16: an operator voids orders, and meanwhile what takes part in it is killed, cut off or rebuilt.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster::{
    Options, Server, Service, TcpProxy, Traffic, blocked_sessions, lock_running_total, wait_until,
};
use futures_util::future::join_all;

use super::messages::republish;
use super::room::room_in_cents;
use crate::books;
use crate::ledger::{Identity, Outcome};
use crate::load::random_key;
use crate::operator::{self, Candidate, latest, reason, void_all};
use crate::scenario::Scenario;
use crate::stage::Stage;
use crate::violations::Invariant;
use crate::voids::Answer;

/// Orders that are voided in one fault.
const VOIDED: usize = 8;

/// How often a command is broken off in each way.
const BROKEN_OFF: usize = 3;

/// The name of the statement on which the command waits.
const STATEMENT: &str = "void_order";

/// Shorter than the lock timeout of the services.
const WAITS_WITHIN: Duration = Duration::from_secs(4);

const AWAY: Duration = Duration::from_secs(2);

/// Long enough for orders that nobody has projected.
const GATHERED: Duration = Duration::from_secs(2);

const REBUILT_WITHIN: Duration = Duration::from_secs(30);

const AT_ONCE: usize = 8;

pub(super) fn scenarios() -> Vec<Scenario> {
    let own = Options::default().with_own_servers();
    vec![
        Scenario::new(16, "voids", |stage| Box::pin(voids(stage)))
            .with_replicas()
            .with_options(own),
    ]
}

async fn voids(stage: &mut Stage) -> anyhow::Result<()> {
    undisturbed(stage).await?;
    let mut killed = [
        Killed::Service(Service::CreateBuyOrder),
        Killed::Service(Service::ReadModelSync),
        Killed::Broker,
    ];
    stage.random.shuffle(&mut killed);
    for what in killed {
        killed_meanwhile(stage, what).await?;
    }
    for _ in 0..BROKEN_OFF {
        broken_off(stage, "voids: `kill -9` of the command", BreakOff::Kill).await?;
        broken_off(stage, "voids: session of the command ended", BreakOff::EndSession).await?;
        answer_swallowed(stage).await?;
    }
    out_of_order(stage).await?;
    messages_lost(stage).await?;
    read_model_emptied(stage).await?;
    room_raced_for(stage).await
}

async fn undisturbed(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let voided = async {
        void_all(&cluster, &shared, &mut random, &latest(&shared, VOIDED)?).await?;
        let nothing = operator::void(&cluster, &shared, random_key(&mut random), "nobody placed it").await?;
        ensure!(
            nothing == Answer::NoSuchOrder,
            "an unknown order was voided: {nothing:?}"
        );
        for order in latest(&shared, VOIDED)? {
            let reasons = [reason(&mut random), reason(&mut random)];
            let at_once = reasons
                .iter()
                .map(|reason| operator::void(&cluster, &shared, order.id, reason));
            for answer in join_all(at_once).await {
                let answer = answer?;
                ensure!(answer.acknowledges(), "one of two at once said {answer:?}");
            }
        }
        Ok(())
    };
    stage
        .harmless_fault("voids: some twice, some by two at once", "", voided)
        .await
}

#[derive(Debug, Clone, Copy)]
enum Killed {
    Service(Service),
    Broker,
}

async fn killed_meanwhile(stage: &mut Stage, what: Killed) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let after = Duration::from_millis(stage.random.u64(0..400));
    let killed = async {
        let orders = latest(&shared, VOIDED)?;
        let kill = async {
            Stage::last(after).await;
            match what {
                Killed::Service(service) => {
                    cluster.kill(service).await?;
                    cluster.launch(service)
                }
                Killed::Broker => {
                    cluster.kill_server(Server::Broker).await?;
                    Stage::last(AWAY).await;
                    cluster.start_server(Server::Broker).await
                }
            }
        };
        tokio::try_join!(kill, void_all(&cluster, &shared, &mut random, &orders))?;
        Ok(())
    };
    let target = match what {
        Killed::Service(service) => service.name(),
        Killed::Broker => "RabbitMQ",
    };
    stage
        .fault("voids: `kill -9`, restart meanwhile", target, killed)
        .await
}

#[derive(Debug, Clone, Copy)]
enum BreakOff {
    Kill,
    EndSession,
}

/// The command is broken off while it waits for the lock of the total. The server may still execute what it has received.
async fn broken_off(stage: &mut Stage, kind: &str, how: BreakOff) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let broken_off = async {
        let order = latest(&shared, 1)?.remove(0);
        let (first, second) = (reason(&mut random), reason(&mut random));
        let lock = lock_running_total(cluster.write_model()).await?;
        let number = shared.voids.begin(order.id, &first);
        let mut command = cluster.void_command(&order.id.to_string(), &first)?;
        let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut waiting = Vec::new();
        wait_until("the command waits for the total", WAITS_WITHIN, async || {
            waiting = blocked_sessions(cluster.write_model(), STATEMENT).await?;
            Ok(!waiting.is_empty())
        })
        .await?;
        match how {
            BreakOff::Kill => command.kill()?,
            BreakOff::EndSession => {
                sqlx::query("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid")
                    .bind(&waiting)
                    .execute(cluster.write_model())
                    .await?;
            }
        }
        lock.commit().await?;
        let status = tokio::task::spawn_blocking(move || command.wait()).await??;
        ensure!(!status.success(), "the command was not broken off");
        shared.voids.end(number, Answer::Unknown);
        operator::repeat(&cluster, &shared, &order, &second).await?;
        Ok(())
    };
    stage.harmless_fault(kind, "", broken_off).await
}

/// The server has committed the void, and the command does not learn it.
async fn answer_swallowed(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let swallowed = async {
        let order = latest(&shared, 1)?.remove(0);
        let (first, second) = (reason(&mut random), reason(&mut random));
        let address = &cluster.addresses().write_model;
        let proxy = TcpProxy::start(&address.host, address.port)?;
        proxy.set(Traffic::SwallowCommitAnswer);
        let mut command = cluster.void_command(&order.id.to_string(), &first)?;
        command
            .env("WRITE_MODEL_DB_HOST", "127.0.0.1")
            .env("WRITE_MODEL_DB_PORT", proxy.port().to_string());
        let answer = operator::run(&shared, command, order.id, &first).await?;
        ensure!(answer == Answer::Unknown, "the answer was not lost: {answer:?}");
        let answer = operator::repeat(&cluster, &shared, &order, &second).await?;
        let was_voided = matches!(&answer, Answer::Before { reason, .. } if *reason == first);
        ensure!(was_voided, "the first command had not voided: {answer:?}");
        Ok(())
    };
    stage
        .harmless_fault("voids: the answer to the command swallowed", "", swallowed)
        .await
}

/// Messages come twice and in reverse, so that voids come before their orders, and to two projectors at once.
async fn out_of_order(stage: &mut Stage) -> anyhow::Result<()> {
    const MAX_TAKEN: usize = 2_000;
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let out_of_order = async {
        let mut detour = cluster.divert_orders().await?;
        Stage::last(GATHERED).await;
        void_all(&cluster, &shared, &mut random, &latest(&shared, VOIDED)?).await?;
        let once = detour.take(MAX_TAKEN, GATHERED).await?;
        let reversed: Vec<_> = once.iter().rev().cloned().collect();
        let mut shuffled = once;
        random.shuffle(&mut shuffled);
        detour.deliver(&reversed).await?;
        detour.deliver(&shuffled).await?;
        detour.end().await
    };
    stage
        .harmless_fault(
            "voids: messages delivered in reverse, and again shuffled",
            "",
            out_of_order,
        )
        .await
}

/// Messages get lost, also of voids of old orders. The operator republishes what was written since shortly before.
async fn messages_lost(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let lost = async {
        let since: String = sqlx::query_scalar(
            r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '5 s', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#,
        )
        .fetch_one(cluster.write_model())
        .await?;
        // Nobody delivers what is taken from the detour.
        let mut detour = cluster.divert_orders().await?;
        let mut orders = operator::candidates(&shared);
        orders.truncate(VOIDED / 2);
        orders.extend(latest(&shared, VOIDED / 2)?);
        void_all(&cluster, &shared, &mut random, &orders).await?;
        let taken = detour.take(usize::MAX, GATHERED).await?;
        ensure!(taken.len() >= VOIDED, "only {} messages were lost", taken.len());
        detour.end().await?;
        republish(&cluster, &["--since", &since]).await
    };
    stage
        .harmless_fault("voids: messages lost, and republished since then", "", lost)
        .await
}

async fn read_model_emptied(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let emptied = async {
        void_all(&cluster, &shared, &mut random, &latest(&shared, VOIDED)?).await?;
        let _walking = shared.walking.write().await;
        sqlx::query("TRUNCATE buy_order_read_model, buy_order_void_read_model")
            .execute(cluster.read_model())
            .await?;
        let orders = latest(&shared, VOIDED)?;
        tokio::try_join!(
            republish(&cluster, &[]),
            void_all(&cluster, &shared, &mut random, &orders)
        )?;
        // A walk demands the orders that were shown before. What is voided is for the audit to judge.
        let wanted = books::size(cluster.write_model()).await?.orders;
        wait_until(
            "the read model has all orders again",
            REBUILT_WITHIN,
            async || Ok(books::projected_size(cluster.read_model()).await?.orders >= wanted),
        )
        .await
    };
    stage
        .harmless_fault("voids: read model emptied, all republished", "", emptied)
        .await
}

/// Many orders at once ask for the room of one that is being voided. One gets it, and no more.
async fn room_raced_for(stage: &mut Stage) -> anyhow::Result<()> {
    let (cluster, shared) = (Arc::clone(&stage.cluster), Arc::clone(&stage.shared));
    let mut random = stage.random.fork();
    let raced = async {
        // Fits once. The rest is for the other clients.
        let cents = u64::try_from(room_in_cents(cluster.write_model()).await? * 3 / 5)?;
        let mut new_order = || Identity {
            currency: "USD",
            cents,
            key: random_key(&mut random),
        };
        let identity = new_order();
        let outcome = shared.place(&identity, &identity.amount(), 0).await;
        let why = format!("a large order was answered {outcome:?}");
        let first = candidate(outcome, &identity).context(why)?;
        let rivals: Vec<Identity> = (0..AT_ONCE).map(|_| new_order()).collect();
        let placed = async || {
            let rivals = rivals.iter().enumerate();
            let placed =
                rivals.map(async |(number, rival)| shared.place(rival, &rival.amount(), number).await);
            join_all(placed).await
        };
        let (_, voided) = tokio::join!(
            placed(),
            operator::void(&cluster, &shared, first.id, "makes room")
        );
        ensure!(
            voided? == Answer::Voided,
            "the first large order was to be voided"
        );
        let accepted: Vec<Candidate> = placed()
            .await
            .into_iter()
            .zip(&rivals)
            .filter_map(|(outcome, rival)| candidate(outcome, rival))
            .collect();
        if accepted.len() != 1 {
            let what = format!(
                "{} orders have got the room of one that was voided",
                accepted.len()
            );
            shared.violations.add(Invariant::I3, what);
        }
        for order in accepted {
            operator::void(&cluster, &shared, order.id, "makes room again").await?;
        }
        Ok(())
    };
    stage
        .harmless_fault("voids: 8 orders at once for the room of a voided one", "", raced)
        .await
}

fn candidate(outcome: Outcome, identity: &Identity) -> Option<Candidate> {
    match outcome {
        Outcome::Acknowledged(order) => Some(Candidate {
            id: order.id,
            identity: identity.clone(),
        }),
        _ => None,
    }
}
