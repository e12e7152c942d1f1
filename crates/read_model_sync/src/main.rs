//! Starts the process. Its code is in the library: what is generic is compiled there, once.

use std::process::ExitCode;

fn main() -> ExitCode {
    read_model_sync::app::run()
}
