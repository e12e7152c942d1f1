//! How many files and connections a process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit of the process to what the system allows it: the usual one, 1,024, is kept low for the sake of programs that use
/// `select`, and fewer than the connections that a service takes.
pub(super) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(info = %error, "the limit of open files stays as it was");
    }
}
