//! Tests that the modules of this crate form layers: a module uses only modules of lower layers.

use std::fs;
use std::path::{Path, PathBuf};

/// From the highest to the lowest.
const LAYERS: [&[&str]; 11] = [
    &["auth"],
    &["migrations", "service"],
    &["broker", "database", "http"],
    &["logging", "readiness"],
    &["metrics", "trace"],
    &[
        "client_address",
        "coalesce",
        "net",
        "request_id",
        "retry",
        "trace_context",
    ],
    &["endpoints"],
    &["env", "tls"],
    &["deployment"],
    &["buy_order_event", "range_checksum"],
    &["from_row", "money", "timestamp"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// The modules of this crate that a source file uses, by `crate::a::…` or `crate::{a::…, b}`. Comments do not count.
fn used_modules(code: &str) -> Vec<String> {
    let code: String = code.lines().map(|line| before(line, "//")).collect();
    let mut modules = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => modules.push(first_name(path)),
            Some(group) => {
                let items = before(group, "}").split(',');
                modules.extend(items.filter(|item| !item.trim().is_empty()).map(first_name));
            }
        }
    }
    modules
}

fn before<'a>(text: &'a str, end: &str) -> &'a str {
    text.split(end).next().unwrap()
}

/// Whether a source file leaves its module by a form that [`used_modules`] does not follow.
fn leaves_by_another_form(code: &str, is_top_level: bool) -> bool {
    let code = code.replace("use super::*;", ""); // in the tests of a file
    let mut groups = code.split("crate::{").skip(1);
    code.contains("super::super")
        || code.contains("use crate as")
        || groups.any(|group| before(group, "}").contains('{'))
        || (is_top_level && code.contains("super::"))
}

fn first_name(path: &str) -> String {
    let name = path.trim_start().chars();
    name.take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn every_module_is_in_one_layer() {
    let lib = fs::read_to_string(source().join("lib.rs")).unwrap();
    let declared = lib.lines().filter_map(|line| {
        let declaration = line
            .strip_prefix("pub(crate) ")
            .or(line.strip_prefix("pub "))
            .unwrap_or(line);
        let module = declaration.strip_prefix("mod ")?.strip_suffix(';');
        module.filter(|module| *module != "layers")
    });
    let declared: Vec<&str> = declared.collect();
    assert_eq!(declared, LAYERS.concat());
}

#[test]
fn a_module_uses_only_modules_of_lower_layers() {
    let mut arrows_up = Vec::new();
    for file in rust_files(&source()) {
        let path = file.strip_prefix(source()).unwrap().with_extension("");
        let module = path.iter().next().unwrap().to_str().unwrap();
        if ["lib", "layers"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap();
        let code = fs::read_to_string(&file).unwrap();
        if leaves_by_another_form(&code, path.iter().count() == 1) {
            arrows_up.push(format!(
                "{} uses super::, crate as or a group in a group",
                path.display()
            ));
        }
        for used in used_modules(&code) {
            let lower = layer(&used).is_some_and(|layer| layer > own);
            if used != module && !lower {
                arrows_up.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(arrows_up.is_empty(), "{arrows_up:#?}");
}

#[test]
fn used_modules_are_found_in_paths_and_in_groups() {
    let code = "
        // crate::comment
        use crate::a::B;
        use crate::{c, d::E, // why
            h, };
        fn i() { crate::j::k(); }
        use crate::*;
    ";
    // The last is of no module, and so of no layer.
    assert_eq!(used_modules(code), ["a", "c", "d", "h", "j", ""]);
}

#[test]
fn other_forms_are_found() {
    for code in [
        "use super::super::http;",
        "use crate as own;",
        "use crate::{a, d::{E, f::G}, h};",
    ] {
        assert!(leaves_by_another_form(code, false), "{code}");
    }
    assert!(leaves_by_another_form("use super::http;", true));
    for (code, is_top_level) in [("use super::http;", false), ("use super::*;", true)] {
        assert!(!leaves_by_another_form(code, is_top_level), "{code}");
    }
}
