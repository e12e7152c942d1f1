//! A wall clock that is wrong, for one process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

/// The variables that set the wall clock of a program off by this much, as libfaketime reads it. The monotonic clock, by which it waits and
/// measures, stays right.
pub(crate) fn clock_set_off(offset: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let library =
        clock_faker_installed().context("libfaketime is missing: install the package `libfaketime`")?;
    let library = library.to_str().context("no path in UTF-8")?;
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

/// libfaketime, where Debian's package puts it: [`Cluster::set_clock`](crate::Cluster::set_clock) needs it.
#[must_use]
pub fn clock_faker_installed() -> Option<PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    // The variant for programs with threads.
    let library = PathBuf::from(folder).join("libfaketimeMT.so.1");
    library.exists().then_some(library)
}
