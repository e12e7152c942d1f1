use std::process::Command;

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
