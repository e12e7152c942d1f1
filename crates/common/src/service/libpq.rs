//! Configuration comes from our contract alone: libpq's variables, which some images and shells set, have no effect.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// sqlx reads these whenever connection options are made, and nothing takes them out again. The others it reads are overridden.
const READ_BY_SQLX: [&str; 3] = ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"];

/// Where one of them is set, starts this program once more in this process, without them: to change one's own environment is unsafe.
///
/// # Errors
/// When the program cannot be found, or started.
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
