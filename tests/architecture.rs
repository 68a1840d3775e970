//! Dependencies between modules point one way: `main → cli → server → proxy → desk → {store, upstream} → rule`.
//!
//! The sources are read for `crate::…` and `oncegate::…` paths, grouped imports included; every path from one top-level
//! module into another must be an edge of [`ALLOWED`]. Tests within the modules may reach further.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources says so by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which module may use which; what is not listed may use none.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["admin", "body", "clock", "config", "desk", "proxy", "rule", "server", "store", "telemetry", "upstream"]),
    ("admin", &["clock", "config", "rule", "store", "telemetry"]),
    ("server", &["body", "clock", "config", "crypto", "rule", "tcp", "telemetry"]),
    ("proxy", &["body", "clock", "config", "desk", "rule", "server", "store", "telemetry", "upstream"]),
    ("desk", &["clock", "rule", "store", "telemetry"]),
    ("store", &["clock", "config", "crypto", "rule"]),
    ("upstream", &["body", "clock", "config", "crypto", "rule", "tcp"]),
    ("config", &["crypto", "rule"]),
    ("telemetry", &["clock", "config", "rule", "store"]),
    ("rule", &[]),
    ("fuzzing", &["config", "rule", "server", "store"]),
    ("body", &[]),
    ("clock", &[]),
    ("crypto", &[]),
    ("tcp", &[]),
];

/// What else a module may name of another, narrower than an edge: (module, path it may use).
const EXCEPTIONS: &[(&str, &str)] = &[("admin", "server::unix_socket")];

#[test]
fn every_dependency_points_the_allowed_way() {
    let mut wrong = BTreeSet::new();
    for (module, file, text) in modules() {
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, uses)| uses);
        for path in crate_paths(&without_tests(&text)) {
            let target = path.split("::").next().unwrap_or_default().to_owned();
            let is_known = ALLOWED.iter().any(|(name, _)| *name == target);
            let is_excepted = EXCEPTIONS.iter().any(|(from, to)| *from == module && path.starts_with(to));
            if is_known && target != module && !allowed.contains(&target.as_str()) && !is_excepted {
                wrong.insert(format!("{}: {module} may not use {target} (crate::{path})", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "edges that the architecture does not allow:\n{}",
        wrong.into_iter().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn every_module_stands_in_the_table() {
    let unknown: BTreeSet<_> =
        modules().into_iter().map(|(module, ..)| module).filter(|module| *module != "lib").collect();
    let unknown: Vec<_> = unknown.iter().filter(|module| ALLOWED.iter().all(|(name, _)| name != module)).collect();
    assert!(unknown.is_empty(), "modules whose dependencies nobody has decided on: {unknown:?}");
}

#[test]
fn the_allowed_edges_have_no_cycle_that_nobody_meant() {
    // `server` offers types that `proxy` uses; everything else is a strict order.
    let edges: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    fn visit<'a>(at: &'a str, edges: &BTreeMap<&'a str, &'a [&'a str]>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&at), "a cycle: {path:?} → {at}");
        path.push(at);
        for next in edges[at] {
            visit(next, edges, path);
        }
        path.pop();
    }
    for (module, _) in ALLOWED {
        visit(module, &edges, &mut Vec::new());
    }
}

#[test]
fn grouped_and_nested_imports_are_seen() {
    let text = "use crate::{\n    rule::{self, Policy},\n    store::Store,\n};\nlet x = crate::clock::now();\npub(crate) fn f() {}\n// crate::desk in a comment\nuse std::fmt;";
    let paths: Vec<_> = crate_paths(text).into_iter().collect();
    assert_eq!(paths, ["clock::now", "rule::Policy", "rule::self", "store::Store"]);
}

/// Every source file with its top-level module.
fn modules() -> Vec<(String, PathBuf, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    let named = files.into_iter().filter(|file| file.file_stem().is_some_and(|stem| stem != "tests"));
    named
        .map(|file| {
            let first = file.strip_prefix(&source).unwrap().components().next().unwrap();
            let module = first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&file).unwrap();
            (module, file, text)
        })
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text before the file's test module, which stands last.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

/// Every path below `crate` (or `oncegate`, in `main`), groups written out.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut paths = BTreeSet::new();
    for root in ["crate::", "oncegate::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                expand("", &mut code[at + root.len()..].chars().filter(|c| !c.is_whitespace()).peekable(), &mut paths);
            }
        }
    }
    paths
}

/// Reads one path, or one group of them, behind `prefix`.
fn expand(prefix: &str, rest: &mut std::iter::Peekable<impl Iterator<Item = char>>, paths: &mut BTreeSet<String>) {
    let mut path = prefix.to_owned();
    loop {
        match rest.peek().copied() {
            Some('{') => {
                rest.next();
                while let Some(c) = rest.peek().copied() {
                    match c {
                        '}' => {
                            rest.next();
                            return;
                        }
                        ',' => _ = rest.next(),
                        _ => expand(&path, rest, paths),
                    }
                }
                return;
            }
            Some(c) if c.is_alphanumeric() || c == '_' || c == ':' || c == '*' => {
                path.push(c);
                rest.next();
            }
            _ => {
                paths.insert(path);
                return;
            }
        }
    }
}
