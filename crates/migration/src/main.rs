//! Starts the process. Its code is in the library: what is generic is compiled there, once.

use std::process::ExitCode;

fn main() -> ExitCode {
    migration::app::run()
}
