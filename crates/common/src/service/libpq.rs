//! libpq's environment variables, which some images and shells set, have no effect: configuration comes from our environment contract alone.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// sqlx reads these each time it makes connection options, and its API cannot unset them. Other variables that it reads are overridden.
const READ_BY_SQLX: [&str; 3] = ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"];

/// If one of them is set, replaces this process by a new one of the same program without them: changing the environment of a running
/// process is unsafe.
///
/// # Errors
/// The program cannot be found or started.
pub(super) fn forget_variables() -> io::Result<()> {
    if READ_BY_SQLX.iter().all(|name| std::env::var_os(name).is_none()) {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut program = Command::new(std::env::current_exe()?);
    program.arg0(arguments.next().unwrap_or_default()).args(arguments);
    for name in READ_BY_SQLX {
        program.env_remove(name);
    }
    Err(program.exec())
}
