//! The environment contract.

use std::process::Command;

#[test]
fn an_empty_environment_is_refused_with_every_missing_name() -> anyhow::Result<()> {
    let ended = Command::new(env!("CARGO_BIN_EXE_fetch_buy_orders"))
        .env_clear()
        .output()?;
    assert_eq!(ended.status.code(), Some(1));
    let complaint = String::from_utf8(ended.stderr)?;
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
    ] {
        assert!(
            complaint.contains(&format!("{name} ")),
            "{name} is not named in: {complaint}"
        );
    }
    assert!(
        !complaint.contains("WRITE_MODEL"),
        "this service has no business there: {complaint}"
    );
    Ok(())
}
