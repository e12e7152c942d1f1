//! A wrong wall clock for one process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

/// The environment variables that shift the wall clock of a program by this offset, in the syntax of libfaketime. The monotonic clock, used for
/// timeouts and measurements, stays correct.
pub(crate) fn clock_variables(offset: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let library =
        clock_faker_installed().context("libfaketime is missing: install the package `libfaketime`")?;
    let library = library.to_str().context("the path of libfaketime is not UTF-8")?;
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DISABLE_SHM", "1"),
    ];
    Ok(variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into())
}

/// The path of libfaketime, if Debian's package is installed. [`Cluster::set_clock`](crate::Cluster::set_clock) needs it.
#[must_use]
pub fn clock_faker_installed() -> Option<PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    // The variant for multithreaded programs.
    let library = PathBuf::from(folder).join("libfaketimeMT.so.1");
    library.exists().then_some(library)
}
