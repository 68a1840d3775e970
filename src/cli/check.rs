//! `oncegate check FILE`: everything that is wrong with a configuration at once, or what its routes come to.

pub(super) mod moved;
mod store;

use std::{
    io::{self, Write},
    path::Path,
};

use http::Method;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use self::{
    moved::{Moved, moved},
    store::{LeftBehind, left_behind},
};
use super::columns::{broken, padded};
use crate::{
    config::{
        self, Config, Diagnostic, Errors, IdentityChange, Loaded, Overrides, settled::Route, show_guard, show_host,
        show_key, show_scope, wrap,
    },
    rule::{method, policy::Mode},
};

/// Exit code of a configuration that can be used.
pub const OK: u8 = 0;
/// Exit code of one that cannot (`EX_CONFIG`).
pub const BAD_CONFIG: u8 = 78;

/// Columns that the table of routes keeps to.
const COLUMNS: usize = 80;

/// Checks a file, and against the one that is in use (`--against`): what a reload would put out of reach. Results go to
/// `out`, errors and warnings to `err`; with `json` all of it, as one object, to `out`. Returns the exit code, [`OK`] or
/// [`BAD_CONFIG`]; a change that a reload refuses (contract: R-5) is the latter.
///
/// # Errors
///
/// Those of `out` and `err`.
pub fn run(
    file: &Path,
    against: Option<&Path>,
    json: bool,
    colour: bool,
    env: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let overrides = Overrides::default();
    let new = config::load(file, &overrides, env);
    let old = against.map(|old| config::load_alone(old, &overrides, env)).transpose();
    let (new, old) = match (new, old) {
        (Ok(new), Ok(old)) => (new, old),
        (new, old) => {
            let errors = [new.err(), old.err()];
            return refuse(&errors, json, colour, out, err);
        }
    };
    let changes = old.as_ref().map_or_else(Vec::new, |old| config::identity_changes(&old.config, &new.config));
    let restart = old.as_ref().map_or_else(Vec::new, |old| config::needs_restart(&old.config, &new.config));
    let refused = !changes.is_empty() && !new.config.server.accept_identity_change;
    let moved: Vec<_> = old.as_ref().map_or_else(Vec::new, |old| moved(&old.config, &new.config));
    // A route that is gone, or has another id, says so itself.
    let told = |moved: &Moved| !moved.stays() && changes.iter().any(|change| change.route == moved.from);
    let moved: Vec<_> = moved.into_iter().filter(|moved| !told(moved)).collect();
    let stores = old.as_ref().map(|old| (&old.config.store, &new.config.store));
    let left_behind = stores.map_or_else(Vec::new, |(old, new)| left_behind(old, new, !restart.is_empty()));
    let report = Report {
        file,
        loaded: &new,
        against: old.is_some(),
        changes: &changes,
        moved: &moved,
        left_behind: &left_behind,
        restart: &restart,
        refused,
    };
    if json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        report.write(colour, out, err)?;
    }
    Ok(if refused { BAD_CONFIG } else { OK })
}

fn refuse(
    errors: &[Option<Errors>],
    json: bool,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let errors = errors.iter().flatten();
    if json {
        writeln!(out, "{:#}", refusal(errors))?;
    } else {
        errors.into_iter().try_for_each(|errors| writeln!(err, "{}", errors.render(colour)))?;
    }
    Ok(BAD_CONFIG)
}

/// What scripts are told of files that cannot be used.
pub(super) fn refusal<'a>(errors: impl IntoIterator<Item = &'a Errors>) -> Value {
    let errors: Vec<_> = errors.into_iter().flat_map(Errors::iter).map(Diagnostic::to_json).collect();
    json!({"ok": false, "errors": errors, "warnings": []})
}

/// What there is to say of a configuration that can be used.
struct Report<'a> {
    file: &'a Path,
    loaded: &'a Loaded,
    against: bool,
    changes: &'a [IdentityChange],
    moved: &'a [Moved],
    left_behind: &'a [LeftBehind],
    restart: &'a [&'static str],
    refused: bool,
}

impl Report<'_> {
    fn to_json(&self) -> Value {
        let Self { file: _, loaded, against, changes, moved, left_behind, restart, refused } = self;
        let settled = config::show(&loaded.config);
        let mut value = json!({
            "ok": !refused,
            "errors": [],
            "warnings": loaded.warnings.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
            "routes": settled["routes"],
            "fallback": settled["fallback"],
        });
        if *against {
            let change = |change: &IdentityChange| json!({"route": change.route, "key": change.change.key(), "message": change.to_string()});
            value["identity_changes"] = changes.iter().map(change).collect();
            let told = |moved: &Moved| json!({"from": moved.from, "to": moved.to(), "id": moved.id, "message": moved.to_string()});
            let (unguarded, moved): (Vec<_>, Vec<_>) = moved.iter().partition(|moved| moved.is_unguarded());
            value["moved_requests"] = moved.into_iter().map(told).collect();
            value["unguarded_requests"] = unguarded.into_iter().map(told).collect();
            value["store_changes"] = left_behind.iter().map(LeftBehind::to_json).collect();
            value["needs_restart"] = restart.iter().copied().collect();
        }
        value
    }

    fn write(&self, colour: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        let Self { file, loaded, against, changes, moved, left_behind, restart, refused } = self;
        for warning in &loaded.warnings {
            writeln!(err, "{}\n", warning.render(colour))?;
        }
        write!(out, "{}", table(&summary(&loaded.config)))?;
        let changes = changes.iter().map(ToString::to_string);
        let moved = moved.iter().map(ToString::to_string);
        let left_behind = left_behind.iter().map(|left_behind| left_behind.message.clone());
        let lost: Vec<_> = changes.chain(moved).chain(left_behind).collect();
        for lost in &lost {
            writeln!(out, "\n{}", wrap(lost, COLUMNS))?;
        }
        if !restart.is_empty() {
            writeln!(out, "\nneeds a restart: {}", restart.join(", "))?;
        }
        if *against && lost.is_empty() {
            writeln!(out, "\nno live record would be out of reach")?;
        }
        if *refused {
            let help = "undo it, or say [server] accept_identity_change = true once live records do not matter";
            let error = Diagnostic::error("a reload would refuse this: it puts live records out of reach").help(help);
            writeln!(err, "{}", error.render(colour))?;
            return Ok(());
        }
        let count = loaded.warnings.len();
        let warnings = match count {
            0 => String::new(),
            1 => ", 1 warning".to_owned(),
            _ => format!(", {count} warnings"),
        };
        writeln!(out, "\n{}: ok{warnings}", file.display())
    }
}

/// A row for each route, and one for the requests that no route matches; a cell is a list of lines.
fn summary(config: &Config) -> Vec<[Vec<String>; 3]> {
    let header = ["ROUTE", "MATCHES", "HANDLING"].map(|title| vec![title.to_owned()]);
    let several = config.upstreams.len() > 1;
    let row = |route: &Route, matches: Vec<String>| {
        let mut handling = handling(route);
        if several {
            handling.push(format!("to {}", config.upstreams[route.upstream].name));
        }
        [vec![route.name.to_string()], matches, handling]
    };
    let routes = config.routes.iter().map(|route| row(route, matches(route)));
    let fallback = config.fallback.iter().map(|route| row(route, vec!["everything else".to_owned()]));
    std::iter::once(header).chain(routes).chain(fallback).collect()
}

fn matches(route: &Route) -> Vec<String> {
    let methods = route.methods.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let place = format!("{}{}", show_host(&route.host).unwrap_or_default(), route.path.text);
    [methods, place].into_iter().filter(|line| !line.is_empty()).collect()
}

fn handling(route: &Route) -> Vec<String> {
    let policy = &route.policy;
    let verb = match policy.mode {
        Mode::Off => return vec!["passes everything".to_owned()],
        Mode::Enforce => "guards",
        Mode::Observe => "observes",
    };
    let methods = show_guard(&policy.guard);
    let guards_none = |own: &Vec<Method>| !own.iter().any(|own| method::guards(policy, own));
    if methods.is_empty() || route.methods.as_ref().is_some_and(guards_none) {
        return vec!["passes everything".to_owned()];
    }
    let keys = policy.key.iter().enumerate();
    let keys = keys.map(|(at, source)| format!("{} {}", if at == 0 { "key" } else { " or" }, show_key(source)));
    let scope = format!("scope {}", show_scope(policy.scope.as_ref()));
    std::iter::once(format!("{verb} {methods}")).chain(keys).chain([scope]).collect()
}

/// Aligned columns, two blanks between them, [`COLUMNS`] wide together: where they do not fit, lines break, in the
/// leftmost column first.
fn table(rows: &[[Vec<String>; 3]]) -> String {
    /// What the three columns may always have.
    const LEAST: [usize; 3] = [20, 26, COLUMNS - 2 * 2 - 20 - 26];
    let natural = |column: usize| rows.iter().flat_map(|row| &row[column]).map(|line| line.width()).max();
    let mut widths: [usize; 3] = std::array::from_fn(|column| natural(column).unwrap_or(0));
    for column in 0..widths.len() {
        let excess = widths.iter().sum::<usize>().saturating_sub(LEAST.iter().sum());
        let spare = widths[column].saturating_sub(LEAST[column]);
        widths[column] -= excess.min(spare);
    }
    let mut text = String::new();
    for row in rows {
        let cells: [Vec<String>; 3] =
            std::array::from_fn(|column| row[column].iter().flat_map(|line| broken(line, widths[column])).collect());
        for at in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
            let cell = |column: usize| cells[column].get(at).map_or("", String::as_str);
            let line: Vec<_> = (0..3).map(|column| padded(cell(column), widths[column])).collect();
            text.push_str(line.join("  ").trim_end());
            text.push('\n');
        }
    }
    text
}
