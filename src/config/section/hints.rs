//! What a wrong key or value may have meant, and what to write instead.

use toml::de::DeValue;

use crate::config::{
    reference::{Kind, Table, reference},
    value::Wrong,
};

/// What an unknown key may have meant: a word beside it, and the remedy. One that holds a table meant a table.
pub(super) fn suggest(key: &str, holds_table: bool, tables: &[Table], title: &str) -> (String, String) {
    let here = |table: &Table| tables.contains(table);
    let is_table = |kind: Kind| matches!(kind, Kind::Table(_) | Kind::Named(_) | Kind::Tables(_));
    let written = key.replace('-', "_").to_lowercase();
    let nearest = |own: bool| {
        reference()
            .iter()
            .filter(|doc| here(&doc.table) == own)
            .filter(|doc| !holds_table || is_table(doc.kind))
            .map(|doc| (strsim::damerau_levenshtein(&written, doc.key), doc))
            .filter(|(distance, doc)| *distance <= doc.key.len().max(3) / 3)
            .min_by_key(|(distance, _)| *distance)
    };
    let own_like_it = longer(&written, tables);
    let mut elsewhere: Vec<_> =
        reference().iter().filter(|doc| !here(&doc.table) && doc.key == written).map(|doc| doc.table).collect();
    // Whoever writes of requests means upstreams rather than the store.
    elsewhere.sort_by_key(|table| *table != Table::Upstream);
    let elsewhere: Vec<_> = elsewhere.into_iter().map(Table::title).collect();
    match (nearest(true), nearest(false)) {
        (None, _) if own_like_it.len() > 1 => (
            "says too little".to_owned(),
            format!("say which {written} is meant: {}", any_of(own_like_it.iter().map(|key| format!("`{key}`")))),
        ),
        // Whoever takes the first of several means another.
        (own, Some((0, _))) if elsewhere.len() > 1 && own.is_none_or(|(distance, _)| distance > 0) => (
            format!("belongs in {}", elsewhere.join(", ")),
            format!("`{written}` is a key of each of these: put it where it is meant"),
        ),
        (own, Some((0, doc))) if own.is_none_or(|(distance, _)| distance > 0) => {
            let table = doc.table.title();
            let label = format!("belongs in {table}");
            let help = match doc.table {
                Table::Policy => format!("`{}` says how requests are handled: put it in {table}", doc.key),
                Table::Top => format!("`{}` is a table of its own, outside every other", doc.key),
                Table::Server
                | Table::ServerTls
                | Table::Admin
                | Table::Log
                | Table::Store
                | Table::StoreMemory
                | Table::StoreRedis
                | Table::Sentinel
                | Table::Upstream
                | Table::UpstreamTls
                | Table::Route => format!("`{}` is a key of {table}", doc.key),
            };
            (label, help)
        }
        (Some((_, doc)), _) => {
            let label = format!("did you mean `{}`?", doc.key);
            (label, format!("`{}`: {}", doc.key, gist(doc.meaning)))
        }
        (None, Some((_, doc))) => {
            let label = format!("did you mean `{}`, in {}?", doc.key, doc.table.title());
            (label, format!("`{}`: {}", doc.key, gist(doc.meaning)))
        }
        (None, None) => {
            let mut keys: Vec<_> = tables.iter().flat_map(|table| table.keys()).map(|doc| doc.key).collect();
            keys.sort_unstable();
            (String::new(), format!("{} takes {}", title, keys.join(", ")))
        }
    }
}

/// The keys of these tables that say what kind of a thing is meant: `connect_timeout` for `timeout`.
fn longer(written: &str, tables: &[Table]) -> Vec<&'static str> {
    let keys = tables.iter().flat_map(|table| table.keys()).map(|doc| doc.key);
    keys.filter(|key| key.strip_suffix(written).is_some_and(|front| front.ends_with('_'))).collect()
}

/// The first sentence of what a key means: whoever mistyped it need not be told its fine print.
fn gist(meaning: &str) -> &str {
    meaning.find(". ").map_or(meaning, |end| &meaning[..=end])
}

fn kind_of(key: &str, tables: &[Table]) -> Kind {
    let doc = tables.iter().flat_map(|table| table.keys()).find(|doc| doc.key == key);
    doc.expect("every key that is read stands in the reference").kind
}

pub(super) fn bounds(key: &str, tables: &[Table]) -> (u64, u64) {
    match kind_of(key, tables) {
        Kind::Integer { min, max } => (min, max),
        Kind::Text
        | Kind::File
        | Kind::Duration
        | Kind::DurationOrOff
        | Kind::Size
        | Kind::Boolean
        | Kind::Choice(_)
        | Kind::Texts
        | Kind::TextsOr(_)
        | Kind::Statuses
        | Kind::Table(_)
        | Kind::Named(_)
        | Kind::Tables(_) => (0, u64::MAX),
    }
}

pub(super) fn between(min: u64, max: u64) -> String {
    match max {
        _ if max == min => format!("of {min}"),
        _ => format!("from {min} to {max}"),
    }
}

/// What a key takes, in words, and an example.
pub(super) fn expected(key: &str, tables: &[Table]) -> (&'static str, String) {
    let doc = tables.iter().flat_map(|table| table.keys()).find(|doc| doc.key == key);
    let doc = doc.expect("every key that is read stands in the reference");
    let example = doc.default.unwrap_or(doc.example);
    let say = format!("say {key} = {example}");
    match doc.kind {
        Kind::Duration | Kind::DurationOrOff => {
            ("a duration in quotes", "a duration carries its unit: say \"30s\", \"5m\", \"24h\"".to_owned())
        }
        Kind::Size => ("a size in quotes", "a size carries its unit: say \"512B\", \"32KiB\", \"64MiB\"".to_owned()),
        Kind::Choice(words) => ("a word in quotes", one_of(&words())),
        Kind::Texts | Kind::Statuses => ("a list", say),
        Kind::TextsOr(word) => ("a list or a word in quotes", format!("{say}, or {key} = \"{word}\"")),
        Kind::Text | Kind::File => ("a text in quotes", say),
        Kind::Integer { .. } | Kind::Boolean | Kind::Table(_) | Kind::Named(_) | Kind::Tables(_) => {
            ("another value", say)
        }
    }
}

fn one_of(words: &[&str]) -> String {
    format!("say {}", any_of(words.iter().map(|word| format!("\"{word}\""))))
}

/// `a, b or c`.
fn any_of(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// Why a text is none of the words.
pub(super) fn choice(words: &[&'static str], text: &str) -> Wrong {
    let lower = text.to_lowercase();
    let near = words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, word), word))
        .filter(|(distance, word)| *distance <= word.len() / 3)
        .min_by_key(|(distance, _)| *distance);
    let message = match near {
        Some((_, word)) => format!("not a word it knows; did you mean \"{word}\"?"),
        None => "not a word it knows".to_owned(),
    };
    Wrong { message, help: one_of(words) }
}

pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether a value is a table or a list of tables.
pub(super) fn holds_table(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            false
        }
    }
}
