//! `oncegate doctor`: looks at what a configuration relies on, and says what to do about what is missing.
//!
//! It changes nothing but one short-lived key of its own in Redis. Whether the file itself is right is
//! `oncegate check`'s to say.

mod files;
mod redis;
#[cfg(test)]
mod tests;
mod upstream;

use std::{
    fmt,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use super::{ConfigFile, Exit, Failure, environment, put};
use crate::config::{
    self, Config, Overrides,
    settled::{Store, StoreKind},
};

/// Arguments of `oncegate doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Print JSON for scripts, e.g. oncegate doctor oncegate.toml --json | jq .findings
    #[arg(long)]
    json: bool,
}

/// Examines; exits 69 when something failed, 78 when the file itself is bad.
pub fn run(args: Args) -> ExitCode {
    match report(args) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
}

fn report(Args { config, json }: Args) -> Result<ExitCode, Failure> {
    // Files that are missing are findings here, not errors of the file.
    let loaded = match config::load_alone(&config.path()?, &Overrides::default(), &environment) {
        Ok(loaded) => loaded,
        Err(errors) => return super::refuse_config(&errors, json),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Failure, "the examination cannot start", error.to_string(), "see the limits of this process")
    })?;
    let report = runtime.block_on(examine(&loaded.config));
    let failed = report.failed();
    if json {
        let value = serde_json::json!({ "ok": !failed, "findings": report.findings });
        put(format_args!("{value:#}\n"))?;
    } else {
        put(report.shown(columns()))?;
    }
    Ok(if failed { Exit::Unavailable } else { Exit::Ok }.into())
}

/// What was found, in the order it was looked at.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
}

/// One line.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: String,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and something is promised less than it could be.
    Warning,
    /// Guarded requests would be refused, or worse.
    Failure,
}

impl Report {
    fn ok(&mut self, subject: &str, finding: impl Into<String>) {
        self.add(Level::Ok, subject, finding, None);
    }

    fn warning(&mut self, subject: &str, finding: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, subject, finding, Some(remedy.into()));
    }

    fn failure(&mut self, subject: &str, finding: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Failure, subject, finding, Some(remedy.into()));
    }

    fn add(&mut self, level: Level, subject: &str, finding: impl Into<String>, remedy: Option<String>) {
        self.findings.push(Finding { level, subject: subject.to_owned(), finding: finding.into(), remedy });
    }

    /// One line each; within so many columns what is longer goes on below itself.
    fn shown(&self, columns: Option<usize>) -> String {
        self.findings.iter().map(|finding| finding.shown(columns)).collect()
    }

    fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Failure)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(None))
    }
}

impl Finding {
    fn shown(&self, columns: Option<usize>) -> String {
        let Self { level, subject, finding, remedy } = self;
        let (style, word) = match level {
            Level::Ok => (AnsiColor::Green.on_default(), "ok"),
            Level::Warning => (AnsiColor::Yellow.on_default().bold(), "warning"),
            Level::Failure => (AnsiColor::Red.on_default().bold(), "failure"),
        };
        let remedy = remedy.iter().flat_map(|remedy| ["; ", remedy]).collect::<String>();
        let text = format!("{subject}: {finding}{remedy}");
        let text = columns.map_or_else(|| text.clone(), |columns| hanging(&text, columns));
        let bold = Style::new().bold();
        // A subject that breaks is left plain.
        let text = match text.strip_prefix(subject.as_str()) {
            Some(rest) => format!("{bold}{subject}{bold:#}{rest}"),
            None => text,
        };
        format!("{style}{word:<LEVEL$}{style:#} {text}\n")
    }
}

/// Columns of a level's word.
const LEVEL: usize = 7;
/// Lines longer than this are hard to follow, however wide the window.
const COLUMNS_MOST: usize = 100;

/// Text that stands behind a level's word, broken at spaces.
fn hanging(text: &str, columns: usize) -> String {
    let (indent, mut at, mut broken) = (LEVEL + 1, LEVEL + 1, String::with_capacity(text.len()));
    for word in text.split(' ') {
        let width = word.chars().count();
        if at > indent && at + 1 + width > columns {
            broken.push('\n');
            broken.push_str(&" ".repeat(indent));
            at = indent;
        } else if at > indent {
            broken.push(' ');
            at += 1;
        }
        broken.push_str(word);
        at += width;
    }
    broken
}

/// The columns of the terminal that results go to; `None` where they go elsewhere.
fn columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let told = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
    Some(told.filter(|columns| *columns > 0).map_or(80, |columns| columns.min(COLUMNS_MOST)))
}

async fn examine(config: &Config) -> Report {
    let mut report = Report::default();
    store(&config.store, &mut report).await;
    for upstream in &config.upstreams {
        upstream::examine(upstream, &mut report).await;
    }
    files::descriptors(config, &mut report);
    files::secrets(config, &mut report);
    report
}

async fn store(store: &Store, report: &mut Report) {
    match &store.kind {
        StoreKind::Memory { .. } => report.warning(
            "store",
            "records live in the memory of one process: a restart or a second replica forgets them",
            "run one replica, and drain it before a restart",
        ),
        StoreKind::Redis(redis) => redis::examine(store, redis, report).await,
    }
}
