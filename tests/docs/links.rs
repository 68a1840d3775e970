//! Links within the documentation lead somewhere, lines fit the page, and the book has every page.

use std::path::{Component, Path, PathBuf};

use super::{
    page::{Page, root},
    tables::anchor,
};

#[test]
fn every_link_leads_somewhere() {
    for page in Page::all() {
        for (line, target) in links(&page) {
            let place = format!("{}:{line}: {target}", page.name);
            if target.starts_with("https://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let mut path = if file.is_empty() { PathBuf::from(&page.name) } else { beside(&page.name, file) };
            if file.ends_with('/') {
                path.push("README.md");
            }
            assert!(root().join(&path).exists(), "{place}: there is no {}", path.display());
            if !fragment.is_empty() {
                let there = Page::read(path.to_str().unwrap());
                let headings = there.prose().filter_map(|(_, line)| line.split_once("# "));
                let anchors: Vec<_> = headings.map(|(_, heading)| anchor(&heading.replace('`', ""))).collect();
                let found = anchors.iter().filter(|anchor| *anchor == fragment).count();
                assert_eq!(found, 1, "{place}: {anchors:?}");
            }
        }
    }
}

/// The book leaves pages outside of `docs/` alone.
#[test]
fn pages_of_the_book_link_to_pages_of_the_book() {
    for page in Page::all().iter().filter(|page| page.name.starts_with("docs/")) {
        for (line, target) in links(page).into_iter().filter(|(_, target)| !target.starts_with("https://")) {
            let file = target.split('#').next().unwrap_or_default();
            let is_inside = file.is_empty() || beside(&page.name, file).starts_with("docs");
            assert!(is_inside, "{}:{line}: {target} is outside of the book", page.name);
        }
    }
}

/// mdBook makes `index.html` of a `README.md`, and leaves links to it as they are: `README.html` is not there. The
/// directory's name leads to it in the book, and on GitHub.
#[test]
fn pages_of_the_book_name_its_directories_and_not_their_readme() {
    for page in Page::all().iter().filter(|page| page.name.starts_with("docs/") && page.name != "docs/SUMMARY.md") {
        for (line, target) in links(page).into_iter().filter(|(_, target)| !target.starts_with("https://")) {
            let file = target.split('#').next().unwrap_or_default();
            let is_readme = Path::new(file).file_name().is_some_and(|name| name == "README.md");
            assert!(!is_readme, "{}:{line}: {target} is README.html in the book; say the directory's name", page.name);
        }
    }
}

#[test]
fn the_summary_has_every_page() {
    let summary = Page::read("docs/SUMMARY.md");
    let listed: Vec<_> = links(&summary).into_iter().map(|(_, target)| format!("docs/{target}")).collect();
    for page in Page::all().iter().filter(|page| page.name.starts_with("docs/") && page.name != "docs/SUMMARY.md") {
        assert!(listed.contains(&page.name), "{} is not in the summary", page.name);
    }
}

#[test]
fn prose_fits_80_columns() {
    for page in Page::all().iter().filter(|page| page.name.starts_with("docs/") || page.name == "SECURITY.md") {
        for (line, text) in page.prose() {
            // Tables, links and long values cannot be broken.
            let may_be_wide = text.starts_with(['|', '`']) || text.contains("](");
            let columns = text.chars().count();
            assert!(may_be_wide || columns <= 80, "{}:{line}: {columns} columns", page.name);
        }
    }
}

/// Targets of `[…](…)`, with their lines.
fn links(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in page.prose() {
        for (at, open) in line.match_indices("](") {
            let rest = &line[at + open.len()..];
            found.push((number, rest.split(')').next().unwrap().to_owned()));
        }
    }
    found
}

/// The file that a page calls `link`, below the root.
fn beside(page: &str, link: &str) -> PathBuf {
    let joined = Path::new(page).parent().unwrap().join(link);
    let mut path = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}
