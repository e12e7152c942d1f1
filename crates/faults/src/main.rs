//! The fault suite as a program: `./test.sh faults`.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Parser;
use faults::report::{self, Row};
use faults::run::{Outcomes, run};
use faults::scenario::Scenario;
use faults::scenarios;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

/// They wait most of the time. More than this, and what is measured is how they wait for the processors.
const JOBS_PER_PROCESSOR: u32 = 2;

/// Breaks a cluster under load, and compares its data with the answers that clients got.
#[derive(Parser)]
struct Arguments {
    /// Seed of the first run; runs with the same seed make the same random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds to run every scenario with, counted from --seed
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Run only scenarios whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Demand tokens from all clients (AUTH_MODE=jwt)
    #[arg(long)]
    tokens: bool,
    /// Go on with further seeds for this long
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// Number of scenarios at once, each with its own cluster; without it, two for each processor
    #[arg(long)]
    jobs: Option<u32>,
    /// Write the table into this page, between its marks
    #[arg(long, value_name = "PAGE")]
    report: Option<PathBuf>,
    /// List the scenarios and exit
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |scenario: &Scenario| {
        arguments
            .only
            .as_ref()
            .is_none_or(|part| scenario.name.contains(part))
    };
    let mut chosen: Vec<Arc<Scenario>> = scenarios::all()
        .into_iter()
        .filter(wanted)
        .map(|mut scenario| {
            scenario.options.tokens = arguments.tokens;
            Arc::new(scenario)
        })
        .collect();
    // These come last, so that the machine becomes idle for them only once.
    chosen.sort_by_key(|scenario| scenario.alone);
    if arguments.list {
        for scenario in &chosen {
            println!("{:>2} {}", scenario.number, scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if chosen.is_empty() {
        bail!("no scenario has this name: --list shows them");
    }
    let jobs = match arguments.jobs {
        Some(jobs) => jobs,
        None => u32::try_from(std::thread::available_parallelism()?.get())? * JOBS_PER_PROCESSOR,
    };
    let began = Instant::now();
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    let mut seed = arguments.seed;
    loop {
        run_all(&chosen, seed, jobs, &mut rows, &mut failed).await?;
        seed += 1;
        let all_seeds = seed >= arguments.seed + arguments.seeds;
        let limit = Duration::from_secs(arguments.minutes.unwrap_or(0) * 60);
        if all_seeds && began.elapsed() >= limit {
            break;
        }
    }
    let section = section(&rows, arguments.seed..seed, began.elapsed());
    println!("\n{section}");
    if let Some(page) = &arguments.report {
        cluster::write_report(page, "./test.sh faults --report", &section)?;
    }
    // Once more, because the table is what people look at, and what a log that is cut keeps.
    for failure in &failed {
        println!("FAILED: {failure}");
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every scenario with this seed, several at once.
async fn run_all(
    chosen: &[Arc<Scenario>],
    seed: u64,
    jobs: u32,
    rows: &mut Vec<Row>,
    failed: &mut Vec<String>,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(usize::try_from(jobs)?));
    let mut runs = JoinSet::new();
    for scenario in chosen.iter().cloned() {
        let slots = Arc::clone(&slots);
        runs.spawn(async move {
            let wanted = if scenario.alone { jobs } else { 1 };
            let slot = slots.acquire_many_owned(wanted).await;
            let run = tokio::task::spawn_blocking(move || {
                let outcomes = run_one(&scenario, seed);
                (scenario, outcomes)
            });
            let outcomes = run.await;
            drop(slot);
            outcomes
        });
    }
    while let Some(ended) = runs.join_next().await {
        let (scenario, outcomes) = ended??;
        let outcomes = outcomes?;
        print_outcome(&scenario, seed, &outcomes);
        if !outcomes.failures.is_empty() {
            failed.push(format!(
                "{}\nTo repeat it: ./test.sh faults --seed {seed} --only {}",
                outcomes.failures.join("\n"),
                scenario.name
            ));
        }
        rows.extend(outcomes.rows);
    }
    Ok(())
}

/// Runs a scenario on a runtime of its own, so that scenarios do not delay each other.
fn run_one(scenario: &Scenario, seed: u64) -> anyhow::Result<Outcomes> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(LocalSet::new().block_on(&runtime, run(scenario, seed)))
}

fn print_outcome(scenario: &Scenario, seed: u64, outcomes: &Outcomes) {
    let title = format!("{:>2} {} (seed {seed})", scenario.number, scenario.name);
    if outcomes.failures.is_empty() {
        println!("{title}: every invariant holds");
        return;
    }
    println!("{title}: FAILED\n{}", outcomes.last_lines);
    for failure in &outcomes.failures {
        println!("{title}: {failure}");
    }
}

fn section(rows: &[Row], seeds: std::ops::Range<u64>, took: Duration) -> String {
    let seeds: Vec<String> = seeds.map(|seed| seed.to_string()).collect();
    format!(
        "Seeds {}, in {} minutes.\n\n{}",
        seeds.join(", "),
        took.as_secs().div_ceil(60),
        report::table(rows)
    )
}
