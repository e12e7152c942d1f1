//! The limit of open files, and so of connections.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit of this process to the maximum that the system allows. The default of 1,024 is kept low for programs that use `select`,
/// and is less than the number of connections that a service accepts.
pub(super) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(info = %error, "the limit of open files stays as it was");
    }
}
