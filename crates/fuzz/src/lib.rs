//! The inputs that every target is given first.

use std::fs;
use std::path::{Path, PathBuf};

/// The inputs in `corpus/<target>`, each with its path: seeds of the fuzzer, and what it once found a fault with.
///
/// # Panics
///
/// If there are none, or they cannot be read.
pub fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<(PathBuf, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            (path, input)
        })
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}

/// Gives a target its corpus. The path of the input at hand is printed, which a test shows if it fails.
pub fn replay(name: &str, target: impl Fn(&[u8])) {
    for (path, input) in corpus(name) {
        println!("{}", path.display());
        target(&input);
    }
}
