//! The benchmarks as a program: `./bench.sh`.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use bench::bench::Bench;
use bench::constant;
use bench::groups::{self, Group};
use bench::report::Report;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures the cluster under load, compared with the bare servers on the same work.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Take one minute instead of twenty: shows that everything works, not how fast
    #[arg(long)]
    quick: bool,
    /// Run only this group; can be repeated
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// List the groups and exit
    #[arg(long)]
    list: bool,
    /// Write all figures into this file, as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    output: PathBuf,
    /// Write the tables into this page, between its marks
    #[arg(long, value_name = "PAGE")]
    report: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Serve the answer in this file, for the run that started it
    #[command(hide = true)]
    Constant { file: PathBuf },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Part::Constant { file }) = &arguments.part {
        constant::serve(file).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.list {
        for Group { name, about, .. } in groups::ALL {
            println!("{name:12} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&arguments.only)?;
    let began = Instant::now();
    let mut bench = Bench::new(arguments.quick)?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        () = measure_all(&mut bench, &chosen, began) => {}
        // On return the servers are stopped and their data is deleted, as after a complete run.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    }
    bench.end_clusters();
    if !arguments.quick && arguments.only.is_empty() {
        bench.require_all_targets();
    }

    let report = Report::of(&bench, began.elapsed()).await;
    let section = report.section();
    println!("\n{section}");
    report.write_json(&arguments.output)?;
    if let Some(page) = &arguments.report {
        cluster::write_report(page, "./bench.sh --report", &section)?;
    }
    for failure in bench.failures() {
        println!("FAILED: {failure}");
    }
    Ok(if bench.failures().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measure_all(bench: &mut Bench, groups: &[Group], began: Instant) {
    for Group { name, about, measure } in groups {
        println!("{name}: {about} (at {} s)", began.elapsed().as_secs());
        bench.figures.begin_group(name);
        let failures = bench.failures().len();
        if let Err(error) = measure(bench).await {
            bench.fail(format!("{name}: {error:#}"));
        }
        if bench.failures().len() > failures {
            println!("{}", bench.last_lines());
        }
    }
}

/// The chosen groups, in the order of [`groups::ALL`].
fn chosen(only: &[String]) -> anyhow::Result<Vec<Group>> {
    let is_known = |name: &&String| groups::ALL.iter().any(|group| group.name == **name);
    if let Some(unknown) = only.iter().find(|name| !is_known(name)) {
        bail!("there is no group {unknown}: --list shows them");
    }
    let wanted = |group: &&Group| only.is_empty() || only.iter().any(|name| name == group.name);
    Ok(groups::ALL.iter().filter(wanted).copied().collect())
}
