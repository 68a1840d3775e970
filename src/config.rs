//! The configuration: TOML text in, [`Config`] out, which cannot be wrong.
//!
//! [`load`] walks the parsed file table by table and collects every error at once, each with its place and its remedy
//! ([`diagnostic`]); what comes out are the validated types of [`settled`] that the rest of the program uses. Every key
//! stands once in the [`reference`](fn@reference), from which the schema and the documentation are made.
//!
//! *Architecture invariant:* nothing here listens, connects or reads the environment by itself: what `${NAME}` stands
//! for is asked of the caller.

mod change;
pub mod diagnostic;
mod file;
mod files;
mod policy;
mod reference;
pub(crate) mod schema;
pub mod secrets;
mod section;
pub mod settled;
mod show;
mod syntax;
mod tables;
mod value;
mod words;

use std::{fs, path::Path};

use toml::de::DeTable;

pub use self::{
    change::{IdentityChange, identity_changes, needs_restart},
    diagnostic::{Diagnostic, Errors, Warning},
    reference::{KeyDoc, Kind, Table, reference},
    settled::Config,
    show::show,
};
use self::{
    diagnostic::{Severity, Source},
    file::Outcome,
};
pub(crate) use diagnostic::wrap;
pub(crate) use file::NO_ROUTE;
pub(crate) use show::{show_guard, show_host, show_key, show_scope};
pub(crate) use value::{duration, show_duration};

/// What the flags of `run` say. They beat the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--upstream`: the url of the only upstream.
    pub upstream: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--admin`
    pub admin: Option<String>,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it comes to.
    pub config: Config,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
}

/// Reads a file, and looks into the files that it names (secrets, tokens, certificates).
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load(path: &Path, overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Errors> {
    let (name, text) = read(path)?;
    settle(&name, &text, overrides, env, Files::Look)
}

/// Reads a file, but not the files that it names: for commands that do not use them, run by people who may not read
/// them.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn load_alone(path: &Path, overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Errors> {
    let (name, text) = read(path)?;
    settle(&name, &text, overrides, env, Files::Ignore)
}

/// Reads the text of a file. `file_name` is what errors call it; relative paths in it begin at its directory. The files
/// that it names are not looked at.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub fn parse(
    file_name: &str,
    text: &str,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Errors> {
    settle(file_name, text, overrides, env, Files::Ignore)
}

/// What `run --upstream URL` uses without a file: every default, the memory store, and callers told apart by their
/// `Authorization`.
///
/// # Errors
///
/// What is wrong with the flags, at once.
pub fn for_upstream(overrides: &Overrides) -> Result<Loaded, Errors> {
    let source = Source::new("", "");
    let none = |_: &str| None;
    let scope = file::scope_without_file();
    let outcome = file::read(&source, &DeTable::new(), Path::new(""), overrides, Some(scope), &none);
    let mut loaded = judge(outcome)?;
    let warning = Warning::warning("no configuration file: callers are told apart by their Authorization header");
    loaded.warnings.insert(0, warning.help("to say otherwise, write a file with scope = [\"header:authorization\"], or \"shared\" when all callers are one"));
    Ok(loaded)
}

fn read(path: &Path) -> Result<(String, String), Errors> {
    let name = path.display().to_string();
    let error = |why: String, help: &str| Errors::from(Diagnostic::error(format!("{name} {why}")).help(help));
    let bytes = fs::read(path).map_err(|cause| {
        error(
            format!("cannot be read: {}", files::reason(&cause)),
            "name a file that is there, and that this user may read: FILE, -c FILE, or ONCEGATE_CONFIG",
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|cause| {
        let at = cause.utf8_error().valid_up_to();
        let line = cause.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        error(format!("is not UTF-8 text from line {line} on"), "save it as UTF-8")
    })?;
    Ok((name, text))
}

/// Whether the files that a configuration names are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    Look,
    Ignore,
}

fn settle(
    file_name: &str,
    text: &str,
    overrides: &Overrides,
    env: &dyn Fn(&str) -> Option<String>,
    files: Files,
) -> Result<Loaded, Errors> {
    let source = Source::new(file_name, text);
    let (document, broken) = DeTable::parse_recoverable(text);
    let twice = syntax::errors(&source, text, &broken);
    if !syntax::is_readable(text, &broken) {
        // What a broken text seems to say would only add errors that are none.
        return Err(Errors::new(twice).expect("a text that cannot be read has an error"));
    }
    let base = Path::new(file_name).parent().unwrap_or_else(|| Path::new(""));
    let mut outcome = file::read(&source, document.get_ref(), base, overrides, None, env);
    outcome.found.extend(twice);
    if files == Files::Look {
        outcome.found.extend(outcome.named.iter().filter_map(|named| named.check(&source)));
    }
    judge(outcome)
}

fn judge(outcome: Outcome) -> Result<Loaded, Errors> {
    // What is wrong in `[defaults]` is found again in each route that inherits it.
    let mut found: Vec<Diagnostic> = Vec::with_capacity(outcome.found.len());
    for diagnostic in outcome.found {
        if !found.contains(&diagnostic) {
            found.push(diagnostic);
        }
    }
    let (errors, warnings) = found.into_iter().partition(|found| found.severity() == Severity::Error);
    match Errors::new(errors) {
        Some(errors) => Err(errors),
        None => Ok(Loaded { config: outcome.config, warnings }),
    }
}
