//! The output of the binary when its environment is faulty.

use std::process::{Command, Output};

fn run(environment: &[(&str, &str)]) -> std::io::Result<(Output, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_btc_price"))
        .env_clear()
        .envs(environment.iter().copied())
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output, complaint))
}

#[test]
fn every_malformed_variable_is_named_at_once() -> std::io::Result<()> {
    let faulty = [
        ("SERVICE_PORT", "http"),
        ("CB_PROTOCOL", "gopher"),
        ("CB_HOST", "some one@else"),
        ("CB_PORT", "65536"),
        ("CB_PATH", "v2/prices"),
        ("CB_TIMEOUT_S", "soon"),
        ("QUOTE_MAX_AGE_S", "-2"),
        ("LOGGING_PORT", "x"),
    ];
    let (output, complaint) = run(&faulty)?;
    assert_eq!(output.status.code(), Some(1));
    for (name, _) in faulty {
        assert!(
            complaint.contains(&format!("{name} is malformed")),
            "{name} in {complaint}"
        );
    }
    assert!(complaint.contains("SERVICE_HOST is missing"), "{complaint}");
    Ok(())
}

#[test]
fn a_ca_file_that_cannot_be_read_ends_the_service_and_is_named_in_the_log() -> std::io::Result<()> {
    let (output, _) = run(&[
        ("SERVICE_HOST", "127.0.0.1"),
        ("SERVICE_PORT", "0"),
        ("CB_HOST", "localhost"),
        ("CB_PORT", "443"),
        ("CB_PATH", "/v2/prices"),
        ("EXTRA_CA_FILE", "/does/not/exist.pem"),
    ])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/does/not/exist.pem"));
    Ok(())
}
