//! The output of the binary when its environment names a file that is not there.

use std::process::Command;

#[test]
fn a_ca_file_that_cannot_be_read_ends_the_service_and_is_named_in_the_log() -> std::io::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_btc_price"))
        .env_clear()
        .envs([
            ("SERVICE_HOST", "127.0.0.1"),
            ("SERVICE_PORT", "0"),
            ("CB_HOST", "localhost"),
            ("CB_PORT", "443"),
            ("CB_PATH", "/v2/prices"),
            ("EXTRA_CA_FILE", "/does/not/exist.pem"),
        ])
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/does/not/exist.pem"));
    Ok(())
}
