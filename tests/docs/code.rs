//! Names in the documentation are those of the code, and what the code has is in the documentation.

use std::collections::BTreeSet;

use oncegate::rule::{Outcome, problem::Problem};

use super::{page::Page, tables::families};

#[test]
fn every_metric_that_is_named_exists() {
    let names: BTreeSet<_> = families().into_iter().map(|family| family.name).collect();
    for page in Page::all() {
        // A pattern's beginning is no name.
        for name in words(&page.text).filter(|word| word.starts_with("oncegate_") && !word.ends_with('_')) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let exists = names.contains(name) || base.is_some_and(|base| names.contains(base));
            assert!(exists, "{}: there is no {name}", page.name);
        }
    }
}

/// In PromQL and elsewhere: `label="value"` after a metric's name.
#[test]
fn every_label_and_value_that_is_named_exists() {
    let families = families();
    for page in Page::all() {
        for (at, name) in
            page.text.match_indices("oncegate_").map(|(at, _)| (at, words(&page.text[at..]).next().unwrap()))
        {
            let rest = &page.text[at + name.len()..];
            let Some((matchers, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
            let base = name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
            let family = families.iter().find(|family| family.name == base).unwrap();
            for matcher in matchers.split(',') {
                let (label, value) = matcher.split_once('=').unwrap();
                let values = family.labels.get(label.trim_end_matches('!')).unwrap_or_else(|| {
                    panic!("{}: {name} has no label {label}", page.name);
                });
                for value in value.trim_start_matches('~').trim_matches('"').split('|') {
                    let is_name = ["route", "upstream"].contains(&label);
                    assert!(is_name || values.iter().any(|have| have == value), "{}: {name} {matcher}", page.name);
                }
            }
        }
    }
}

/// Outcomes and what observing counts have tables on the pages that they belong to.
#[test]
fn every_value_of_a_label_is_explained() {
    let metrics = Page::read("docs/metrics.md").text;
    let by_hand = metrics.split("<!-- generated").next().unwrap_or_default();
    let pages = [by_hand, &Page::read("docs/http.md").text, &Page::read("docs/adopting.md").text];
    for family in families() {
        for (label, values) in &family.labels {
            let is_name = ["route", "upstream", "version", "store"].contains(&label.as_str());
            // Problems, framing reasons and statuses have pages of their own.
            let is_elsewhere =
                label == "reason" && ["oncegate_refused_total", "oncegate_released_total"].contains(&&*family.name);
            for value in values.iter().filter(|_| !is_name && !is_elsewhere) {
                let is_there = pages
                    .iter()
                    .any(|page| page.contains(&format!("`{value}`")) || page.contains(&format!("`{value};")));
                assert!(is_there, "{}: {label}={value} is not explained", family.name);
            }
        }
    }
}

#[test]
fn every_problem_that_is_named_exists() {
    let codes: BTreeSet<_> = Problem::ALL.iter().map(|problem| problem.code()).collect();
    for page in Page::all() {
        for (at, prefix) in page.text.match_indices("urn:oncegate:problem:") {
            let code: String =
                page.text[at + prefix.len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(code.is_empty() || codes.contains(&*code), "{}: there is no problem {code}", page.name);
        }
    }
}

#[test]
fn every_outcome_is_explained() {
    let page = Page::read("docs/http.md");
    for label in Outcome::LABELS.iter().filter(|label| !["passed", "failed"].contains(label)) {
        assert!(page.text.contains(&format!("| `{label}")), "Idempotency-Status: {label} is not in {}", page.name);
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')).filter(|word| !word.is_empty())
}
