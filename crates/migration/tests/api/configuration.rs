//! The environment contract.

use std::process::Command;

#[test]
fn an_empty_environment_is_refused_with_every_missing_name() -> anyhow::Result<()> {
    for arguments in [&[][..], &["--once"]] {
        let ended = Command::new(env!("CARGO_BIN_EXE_migration"))
            .args(arguments)
            .env_clear()
            .output()?;
        assert_eq!(ended.status.code(), Some(1));
        let complaint = String::from_utf8(ended.stderr)?;
        let database =
            |model| ["HOST", "PORT", "NAME", "USER", "PWD"].map(|part| format!("{model}_DB_{part} "));
        let service = ["SERVICE_HOST ".to_owned(), "SERVICE_PORT ".to_owned()];
        for name in database("WRITE_MODEL")
            .into_iter()
            .chain(database("READ_MODEL"))
            .chain(service)
        {
            assert!(complaint.contains(&name), "{name}is not named in: {complaint}");
        }
    }
    Ok(())
}
