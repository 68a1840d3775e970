//! What the parser of TOML has to say, each with its remedy.

use std::{ops::Range, sync::Arc};

use super::diagnostic::{Diagnostic, Source};

/// Begins the table that many take the list of routes for.
const SINGLE: &str = "[routes]";

/// What the parser's words begin with or hold, and what to do then. The first that fits is said.
const REMEDIES: [(&str, &str); 9] = [
    ("unclosed table", "close the header: [server]"),
    ("unclosed array table", "close the header twice: [[routes]]"),
    ("unclosed array", "close the list: [\"POST\", \"PUT\"]"),
    ("inline table", "write it as { cert = \"tls.crt\", key = \"tls.key\" }"),
    ("must be quoted", "put the text in double quotes: mode = \"observe\""),
    (
        "string",
        "end the text with the quote that it begins with; \\\" stands for a quote within it, \\\\ for a backslash",
    ),
    ("missing comma", "put a comma between the elements: [\"POST\", \"PUT\"]"),
    ("value", "say key = value, with texts in double quotes"),
    ("key", "say key = value, one a line; below [server] stand the keys of that table"),
];

/// For what no remedy fits.
const OTHERWISE: &str = "a line is key = value, with texts in double quotes, or [server], which begins a table";

/// What the parser says of what stands twice.
const TWICE: &str = "duplicate key";

/// Whether what was parsed can be read on all the same: only something stands twice, and the parser kept the first.
pub(super) fn is_readable(text: &str, errors: &[toml::de::Error]) -> bool {
    let single =
        |error: &toml::de::Error| text[line_start(text, error.span().unwrap_or(0..0).start)..].starts_with(SINGLE);
    errors.iter().all(|error| error.message().contains(TWICE) && !single(error))
}

pub(super) fn errors(source: &Arc<Source>, text: &str, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut after_single = false;
    let mut found = Vec::new();
    for error in errors {
        let place = error.span().unwrap_or(0..0);
        let is_single = text[line_start(text, place.start)..].starts_with(SINGLE);
        let is_twice = error.message().contains(TWICE);
        // The keys of a second `[routes]` are all duplicates, and none of them is the mistake.
        if is_twice && after_single && !is_single {
            continue;
        }
        after_single |= is_twice && is_single;
        let diagnostic = Diagnostic::error(format!("not TOML: {}", error.message())).at(source, place.clone());
        found.push(match (is_twice, is_single) {
            (true, true) => diagnostic.help("routes are a list: begin each with [[routes]]"),
            (true, false) => twice(source, text, &place, diagnostic),
            (false, _) if text[place.start..].starts_with(|c: char| c.is_control() && !c.is_whitespace()) => diagnostic
                .help("a control character stands in no text: leave it out, or write its escape, such as \\u0000"),
            (false, _) => {
                let remedy = REMEDIES.iter().find(|(words, _)| error.message().contains(words));
                diagnostic.help(remedy.map_or(OTHERWISE, |(_, remedy)| remedy))
            }
        });
    }
    found
}

/// A key, or a table, that is there for the second time. The parser does not tell where the first one is.
fn twice(source: &Arc<Source>, text: &str, place: &Range<usize>, diagnostic: Diagnostic) -> Diagnostic {
    let (before, line) = text.split_at(line_start(text, place.start));
    let line = line.lines().next().unwrap_or_default();
    let is_header = line.trim_start().starts_with('[');
    let same = |other: &&str| match is_header {
        true => other.trim() == line.trim(),
        false => other.split_once('=').is_some_and(|(key, _)| key.trim() == &text[place.clone()]),
    };
    let lines = before.split_inclusive('\n');
    let ends = lines.clone().scan(0, |end, line| {
        *end += line.len();
        Some(*end)
    });
    // Of a key only its own table is looked through.
    let mut earlier = lines.zip(ends).collect::<Vec<_>>().into_iter().rev();
    let first = if is_header {
        earlier.find(|(line, _)| same(line))
    } else {
        earlier.take_while(|(line, _)| !line.trim_start().starts_with('[')).find(|(line, _)| same(line))
    };
    let help = match is_header {
        true => "a table stands once: put the keys of both below one header",
        false => "a key stands once in a table: leave one of them out",
    };
    let diagnostic = diagnostic.help(help);
    match first {
        Some((line, end)) => diagnostic.label(format!("the first is in line {}", source.position(end - line.len()).0)),
        None => diagnostic,
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}
