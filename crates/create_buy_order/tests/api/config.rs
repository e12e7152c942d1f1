use std::process::Command;

#[test]
fn an_empty_environment_names_all_that_is_missing_and_exits_with_1() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_create_buy_order"))
        .env_clear()
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr)?;
    for name in [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "WRITE_MODEL_DB_HOST",
        "WRITE_MODEL_DB_PORT",
        "WRITE_MODEL_DB_NAME",
        "WRITE_MODEL_DB_USER",
        "WRITE_MODEL_DB_PWD",
        "MIGRATION_HOST",
        "MIGRATION_PORT",
        "Q_HOST",
        "Q_PORT",
        "Q_USER",
        "Q_PWD",
        "BTC_PRICE_HOST",
        "BTC_PRICE_PORT",
    ] {
        assert!(
            complaint.contains(&format!("{name} ")),
            "{name} is not named in: {complaint}"
        );
    }
    Ok(())
}

#[test]
fn an_unknown_argument_is_refused() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_create_buy_order"))
        .arg("--help-me")
        .env_clear()
        .output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("--help-me"));
    Ok(())
}
