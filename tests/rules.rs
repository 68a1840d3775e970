//! Every rule of the contract is shown by a test that names it: `// contract: R-7`.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources says so by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rules by letter: numbered from 1 to this.
const RULES: [(&str, u32); 3] = [("P", 7), ("R", 24), ("S", 9)];

#[test]
fn every_rule_is_named_by_a_test() {
    let named = named();
    let missing: Vec<String> = RULES
        .into_iter()
        .flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}-{number}")))
        .filter(|rule| !named.contains(rule))
        .collect();
    assert!(missing.is_empty(), "rules that no test names by `// contract: …`: {missing:?}");
}

#[test]
fn every_rule_that_a_test_names_exists() {
    let exists = |rule: &String| {
        let (letter, number) = rule.split_once('-').unwrap();
        let last = RULES.into_iter().find(|(l, _)| *l == letter).map(|(_, last)| last);
        last.zip(number.parse().ok()).is_some_and(|(last, number)| (1..=last).contains(&number))
    };
    let unknown: Vec<_> = named().into_iter().filter(|rule| !exists(rule)).collect();
    assert!(unknown.is_empty(), "rules that the contract does not have: {unknown:?}");
}

/// Rules named in a comment above a test.
fn named() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    collect(&root.join("tests"), &mut files);
    let mut rules = BTreeSet::new();
    for file in files.iter().filter(|file| !file.ends_with("tests/rules.rs")) {
        for line in fs::read_to_string(file).unwrap().lines() {
            // A `///` cites the rule where it is applied; only a plain comment says that a test shows it.
            let Some(text) = line.trim_start().strip_prefix("// contract:") else { continue };
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            rules.extend(words.filter(|word| is_rule(word)).map(str::to_owned));
        }
    }
    rules
}

fn is_rule(word: &str) -> bool {
    let mut parts = word.split('-');
    let letter = parts.next().is_some_and(|letter| matches!(letter, "P" | "R" | "S"));
    letter
        && parts.next().is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        && parts.next().is_none()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
