//! What pages say about keys, problems, metrics and refusals is made from the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use oncegate::{
    config::{KeyDoc, Kind, Table},
    rule::{
        Policy, RouteName,
        problem::{Executed, Problem, Retry},
    },
    server::{Reason, TurnedAway},
    telemetry::metrics::{Metrics, Readings},
};

use super::page::Page;

#[test]
fn the_configuration_reference_is_that_of_the_code() {
    let mut text = String::new();
    for table in Table::ALL {
        writeln!(text, "## {}\n", heading(table)).unwrap();
        table.keys().for_each(|doc| describe(&mut text, doc));
        text.push('\n');
    }
    Page::read("docs/configuration.md").generated("keys", &text);
}

const fn heading(table: Table) -> &'static str {
    match table {
        Table::Top => "The top of the file",
        Table::Policy => "Policy: [defaults] and [[routes]]",
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
        | Table::Route => table.title(),
    }
}

fn describe(text: &mut String, doc: &KeyDoc) {
    let KeyDoc { table, key, kind, default, meaning, example, since } = doc;
    if let (Table::Top, Kind::Table(of) | Kind::Named(of) | Kind::Tables(of)) = (table, kind) {
        let place = heading(*of);
        let item = format!("- `{key}`: {meaning} See [`{place}`](#{}). Since {since}.", anchor(place));
        writeln!(text, "{}", wrapped(&item).replace('\n', "\n  ")).unwrap();
        return;
    }
    let default = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let facts = format!("Takes {}. Default: {default}. Example: `{key} = {example}`. Since {since}.", takes(*kind));
    writeln!(text, "### {}{key}\n\n{}\n\n{}\n", prefix(*table), wrapped(meaning), wrapped(&facts)).unwrap();
}

/// What makes a key's heading, and so its anchor, one of a kind.
const fn prefix(table: Table) -> &'static str {
    match table {
        Table::Top | Table::Policy => "",
        Table::Server => "server.",
        Table::ServerTls => "server.tls.",
        Table::Admin => "admin.",
        Table::Log => "log.",
        Table::Store => "store.",
        Table::StoreMemory => "store.memory.",
        Table::StoreRedis => "store.redis.",
        Table::Sentinel => "store.redis.sentinel.",
        Table::Upstream => "upstreams.NAME.",
        Table::UpstreamTls => "upstreams.NAME.tls.",
        Table::Route => "routes.",
    }
}

fn takes(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".into(),
        Kind::File => "the path of a file".into(),
        Kind::Duration => "a duration".into(),
        Kind::DurationOrOff => "a duration, or `\"off\"`".into(),
        Kind::Size => "a size".into(),
        Kind::Integer { min, max } if min == max => format!("only `{min}`"),
        Kind::Integer { min, max } if max == u64::from(u32::MAX) => format!("a whole number from {min} on"),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Boolean => "`true` or `false`".into(),
        Kind::Choice(words) => {
            let words: Vec<_> = words().iter().map(|word| format!("`\"{word}\"`")).collect();
            format!("one of {}", words.join(", "))
        }
        Kind::Texts => "a list of texts".into(),
        Kind::TextsOr(word) => format!("a list of texts, or `\"{word}\"`"),
        Kind::Statuses => "a list of statuses".into(),
        Kind::Table(_) => "a table".into(),
        Kind::Named(_) => "a table for each name".into(),
        Kind::Tables(_) => "a list of tables".into(),
    }
}

/// The table of problems, and what does not hold in every case.
#[expect(clippy::wildcard_enum_match_arm, reason = "a problem says itself what it is, unless it says otherwise here")]
#[test]
fn the_table_of_problems_is_that_of_the_code() {
    let mut text = String::from(
        "| code | status | executed | retry | Retry-After | Stripe-Should-Retry |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for problem in Problem::ALL {
        let row = problem.row();
        let retry = row.retry.map_or("–", Retry::as_str);
        let should = row.retry.map_or("–", |retry| if retry == Retry::Never { "false" } else { "true" });
        let after = match problem {
            // Half the owner's age.
            Problem::InFlight | Problem::StillRunning => "1–10".to_owned(),
            _ => row.retry_after.map_or_else(|| "–".to_owned(), |seconds| seconds.to_string()),
        };
        let executed = row.executed.map_or("–", Executed::as_str);
        let code = row.code;
        writeln!(text, "| [{code}](#{code}) | {} | {executed} | {retry} | {after} | {should} |", statuses(problem))
            .unwrap();
    }
    Page::read("docs/problems.md").generated("problems", &text);
}

/// The statuses that a problem comes with; tests over sockets see each.
#[expect(clippy::wildcard_enum_match_arm, reason = "a problem says itself what it is, unless it says otherwise here")]
fn statuses(problem: Problem) -> String {
    let own = problem.row().status;
    match problem {
        Problem::OutcomeUnknown => format!("{own}, 504, 409"),
        Problem::UpstreamFailed => format!("{own}, 504"),
        Problem::KeyReused => format!("{own} (stripe: 400)"),
        Problem::BadRequest => {
            let all: BTreeSet<_> =
                Reason::ALL.iter().map(|reason| oncegate::server::Refusal::from(*reason).status.as_u16()).collect();
            all.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        }
        _ => own.to_string(),
    }
}

#[test]
fn every_problem_has_a_part_of_its_own_with_title_and_sentence() {
    let mut page = Page::read("docs/problems.md");
    for problem in Problem::ALL {
        let row = problem.row();
        let heading = format!("\n## {}\n", row.code);
        let from = page.text.find(&heading).unwrap_or_else(|| panic!("no part for {}", row.code)) + heading.len();
        let to = page.text[from..].find("\n## ").map_or(page.text.len(), |end| from + end);
        for (word, must) in [("**The client**", row.retry.is_some()), ("**The operator**", true)] {
            assert!(!must || page.text[from..to].contains(word), "{}: no {word}", row.code);
        }
        let first = page.text[from..to].find("**").map_or(to, |end| from + end);
        let said = format!("\n*{}.*\n\n{}\n\n", row.title, wrapped(&format!("> {}", row.detail)).replace('\n', "\n> "));
        page.expect(from..first, &said);
    }
    page.write();
    let parts = page.text.lines().filter_map(|line| line.strip_prefix("## ")).filter(|part| !part.contains(' '));
    let codes: Vec<_> = Problem::ALL.iter().map(|problem| problem.code()).collect();
    assert_eq!(parts.collect::<Vec<_>>(), codes);
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let mut text = String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for family in families() {
        let labels: Vec<_> = family.labels.keys().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help).unwrap();
        for (label, found) in family.labels {
            let has_names = ["route", "upstream", "version"].contains(&&*label);
            let found: Vec<_> = found.iter().map(|value| format!("`{value}`")).collect();
            if !has_names {
                let of = format!("`{label}` of `{}`", family.name.trim_start_matches("oncegate_"));
                values.entry(found.join(", ")).or_default().push(of);
            }
        }
    }
    let mut lists: Vec<_> = values.into_iter().map(|(values, of)| (of.join(", "), values)).collect();
    lists.sort();
    let list: String =
        lists.iter().map(|(of, values)| wrapped(&format!("- {of}: {values}")).replace('\n', "\n  ") + "\n").collect();
    Page::read("docs/metrics.md").generated("metrics", &format!("{text}\n## Values of labels\n\n{list}"));
}

/// A metric as a scrape shows it.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    kind: String,
    help: String,
    /// With the values of one route under the default policy.
    pub(crate) labels: BTreeMap<String, Vec<String>>,
}

/// Every metric, as a process scraped before its first request has it.
pub(crate) fn families() -> Vec<Family> {
    let metrics = Metrics::new();
    let _route = metrics.route(&RouteName("create charge".into()), &Policy::default());
    let _upstream = metrics.upstream("payments");
    let _store = metrics.store("memory");
    let mut found: Vec<Family> = Vec::new();
    for line in metrics.render(&Readings::default()).lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            found.push(Family {
                name: name.to_owned(),
                kind: String::new(),
                help: help.to_owned(),
                labels: BTreeMap::new(),
            });
            continue;
        }
        let family = found.last_mut().expect("HELP comes first");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family.kind = rest.split(' ').nth(1).unwrap().to_owned();
        } else if let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) {
            for pair in labels.split(',').filter(|pair| !pair.starts_with("le=")) {
                let (label, value) = pair.split_once('=').unwrap();
                let values = family.labels.entry(label.to_owned()).or_default();
                let value = value.trim_matches('"').to_owned();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }
    found
}

#[test]
fn the_table_of_refusals_is_that_of_the_code() {
    let mut text = String::from("| reason | status | what the client is told |\n| --- | --- | --- |\n");
    for reason in Reason::ALL {
        let refusal = oncegate::server::Refusal::from(*reason);
        writeln!(text, "| `{}` | {} | {} |", reason.as_str(), refusal.status.as_u16(), refusal.detail).unwrap();
    }
    Page::read("docs/http.md").generated("refusals", &text);
}

#[test]
fn the_table_of_connections_turned_away_is_that_of_the_code() {
    let mut text = String::from("| reason | what happened | what becomes of the connection |\n| --- | --- | --- |\n");
    for why in TurnedAway::ALL {
        writeln!(text, "| `{}` | {} | {} |", why.as_str(), why.detail(), why.answer()).unwrap();
    }
    Page::read("docs/http.md").generated("turned away", &text);
}

/// The anchor that a heading gets.
pub(crate) fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Lines of at most 80 columns; what is in backticks stays whole.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line, mut in_code) = (Vec::new(), String::new(), false);
    let mut word = String::new();
    for part in text.split(' ') {
        if !word.is_empty() {
            word.push(' ');
        }
        word.push_str(part);
        in_code ^= part.matches('`').count() % 2 == 1;
        if in_code {
            continue;
        }
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 80 {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&std::mem::take(&mut word));
    }
    lines.push(line);
    lines.join("\n")
}
