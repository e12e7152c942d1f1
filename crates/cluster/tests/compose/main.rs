//! The system in containers: `docker-compose up` on images that are built, the black-box suite of `tests/system.rs`, more
//! replicas, a restart of every container under load, `down`. Run by `./test.sh docker`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs,
    reason = "tests"
)]

#[path = "../black_box/suite.rs"]
mod black_box;
mod broker;
mod confinement;
mod environment;
mod events;
mod inside;
mod production;
mod project;
mod restarts;
mod scaling;
mod supply_chain;
mod tokens;
mod traffic;

use std::time::Instant;

use black_box::{System, every_sentence};
use project::Project;

/// Runs one part, and prints its result and duration.
async fn part<T>(sentence: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let started = Instant::now();
    let outcome = work.await;
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    eprintln!(
        "{verdict:>8} {:>6.1} s  {sentence}",
        started.elapsed().as_secs_f32()
    );
    outcome.map_err(|error| error.context(sentence.to_owned()))
}

macro_rules! one_after_another {
    ($($topic:ident::$sentence:ident,)*) => {
        /// The suite that also runs natively.
        async fn black_box_suite(system: &System) -> anyhow::Result<()> {
            $(part(stringify!($sentence), black_box::$topic::$sentence(system)).await?;)*
            Ok(())
        }
    };
}
every_sentence!(one_after_another);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_in_containers_keeps_every_promise() -> anyhow::Result<()> {
    let started = Instant::now();
    let project = Project::development()?;
    let system = project.system()?;
    part("`up` alone is enough to become healthy", project.up(&system, &[])).await?;

    part(
        "images_are_small_and_hold_nothing_but_the_binary_and_its_list",
        confinement::images_are_small_and_hold_nothing_but_the_binary_and_its_list(&project),
    )
    .await?;
    part(
        "images_say_what_they_are_and_what_is_compiled_in",
        supply_chain::images_say_what_they_are_and_what_is_compiled_in(&project),
    )
    .await?;
    part(
        "containers_have_no_rights",
        confinement::containers_have_no_rights(&project),
    )
    .await?;
    part(
        "containers_get_the_variables_that_their_services_read",
        environment::containers_get_the_variables_that_their_services_read(&project),
    )
    .await?;
    part(
        "each_service_has_a_user_that_may_do_what_it_needs",
        broker::each_service_has_a_user_that_may_do_what_it_needs(&project, &system),
    )
    .await?;
    part(
        "the_entry_hands_out_nothing_for_operators",
        confinement::the_entry_hands_out_nothing_for_operators(&system),
    )
    .await?;
    black_box_suite(&system).await?;
    part(
        "events_arrive_at_the_log",
        events::events_arrive_at_the_log(&project, &system),
    )
    .await?;
    part(
        "the_entry_logs_each_request",
        events::the_entry_logs_each_request(&project, &system),
    )
    .await?;
    scaling::more_replicas_share_the_requests(&project, &system).await?;
    restarts::a_restart_of_every_container_under_load_loses_and_doubles_no_order(&project, &system).await?;
    part(
        "events_arrive_at_the_log, also after its restart",
        events::events_arrive_at_the_log(&project, &system),
    )
    .await?;

    let with_token = part(
        "the public services demand tokens of an issuer",
        project.up_with_tokens(&system),
    )
    .await?;
    part(
        "without a token nobody is let in",
        tokens::without_a_token_nobody_is_let_in(&system),
    )
    .await?;
    black_box_suite(&with_token).await?;

    part("`down -v` leaves nothing behind", async { project.down() }).await?;
    eprintln!("compose suite: {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_production_deployment_can_be_put_on_the_internet() -> anyhow::Result<()> {
    let started = Instant::now();
    let deployment = production::Deployment::make()?;
    let system = deployment.system()?;
    part(
        "`up` alone is enough to become healthy, with TLS everywhere",
        deployment.project.up(&system, &[]),
    )
    .await?;
    part(
        "containers_have_no_rights",
        confinement::containers_have_no_rights(&deployment.project),
    )
    .await?;
    part("containers_write_nowhere_and_are_published_nowhere", async {
        deployment.containers_write_nowhere_and_are_published_nowhere()
    })
    .await?;
    part("no_password_is_in_the_environment_of_a_container", async {
        deployment.no_password_is_in_the_environment_of_a_container()
    })
    .await?;
    part(
        "an_order_needs_a_token_and_tls",
        deployment.an_order_needs_a_token_and_tls(),
    )
    .await?;
    part("a_container_reaches_what_it_needs_and_nothing_else", async {
        deployment.a_container_reaches_what_it_needs_and_nothing_else()
    })
    .await?;
    part(
        "attacks_on_the_databases_are_refused_inside_each_container",
        async { deployment.attacks_on_the_databases_are_refused_inside_each_container() },
    )
    .await?;
    part(
        "attacks_on_the_broker_are_refused_inside_each_container",
        deployment.attacks_on_the_broker_are_refused_inside_each_container(),
    )
    .await?;
    part(
        "new_certificates_are_used_without_a_restart",
        deployment.new_certificates_are_used_without_a_restart(),
    )
    .await?;
    part("`down -v` leaves nothing behind", async {
        deployment.project.down()
    })
    .await?;
    eprintln!("production: {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}
