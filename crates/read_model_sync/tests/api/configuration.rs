use std::process::Command;

#[test]
fn an_empty_environment_is_refused_with_every_name_that_is_missing() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_read_model_sync"))
        .env_clear()
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    for name in [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "READ_MODEL_DB_HOST",
        "READ_MODEL_DB_PORT",
        "READ_MODEL_DB_NAME",
        "READ_MODEL_DB_USER",
        "READ_MODEL_DB_PWD",
        "MIGRATION_HOST",
        "MIGRATION_PORT",
        "Q_HOST",
        "Q_PORT",
        "Q_USER",
        "Q_PWD",
    ] {
        assert!(said.contains(name), "{name} is not named: {said}");
    }
    Ok(())
}
