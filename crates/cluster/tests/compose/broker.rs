//! Who may do what on the broker, by the definitions that its container loads.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::black_box::System;
use crate::project::{BROKER_LOGIN, Project, docker};

fn login(name: &str) -> &'static str {
    let found = BROKER_LOGIN.iter().find(|(variable, _)| *variable == name);
    found.map_or("", |(_, value)| value)
}

/// What a user gets from the management interface: the status and the body.
async fn get(
    project: &Project,
    system: &System,
    resource: &str,
    prefix: &str,
) -> anyhow::Result<(u16, Value)> {
    let [user, password] = ["USER", "PWD"].map(|part| login(&format!("{prefix}Q_{part}")));
    let request = system.http.get(project.broker_api(resource)?);
    let answer = request.basic_auth(user, Some(password)).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

pub(crate) async fn each_service_has_a_user_that_may_do_what_it_needs(
    project: &Project,
    system: &System,
) -> anyhow::Result<()> {
    let (orders, dead_letters) = ("^(pydist)$", "^(pydist\\.dead_letter)$");
    let (status, permissions) = get(project, system, "permissions", "").await?;
    ensure!(status == 200, "{permissions}");
    for (prefix, configure, write, read) in [
        ("CREATE_BUY_ORDER_", "^$", orders, "^$"),
        ("READ_MODEL_SYNC_", "^$", dead_letters, "^(buy_order)$"),
    ] {
        let user = login(&format!("{prefix}Q_USER"));
        let expected = json!({"user": user, "vhost": login("Q_VHOST"), "configure": configure, "write": write, "read": read});
        let all = permissions.as_array().context("no list")?;
        let theirs: Vec<&Value> = all.iter().filter(|one| one["user"] == user).collect();
        ensure!(theirs == [&expected], "{theirs:?}, not {expected}");
    }
    for prefix in ["MIGRATION_", "CREATE_BUY_ORDER_", "READ_MODEL_SYNC_"] {
        let (status, said) = get(project, system, "users", prefix).await?;
        ensure!(status == 401, "{prefix}: {status} {said}");
    }
    let queue = project.containers(Some("queue"))?;
    let queue = queue.first().context("no container")?;
    let mode = [
        "exec",
        queue.id(),
        "stat",
        "-c",
        "%a",
        "/var/lib/rabbitmq/definitions.json",
    ];
    let mode = docker(&mode)?;
    ensure!(
        mode.trim() == "600",
        "the file with the passwords has the mode {mode}"
    );
    Ok(())
}
