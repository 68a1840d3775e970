//! How a command ends: its exit code, and what an error says.

use std::{fmt, io::Write as _, process::ExitCode};

use clap::builder::styling::{AnsiColor, Style};

use crate::config::wrap;

/// Exit codes, after sysexits.h (contract: section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Anything that no other code says.
    Failure = 1,
    /// The command line makes no sense (`EX_USAGE`).
    Usage = 64,
    /// Something cannot be bound or reached (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The configuration is bad (`EX_CONFIG`).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Columns that errors keep to where they can.
const COLUMNS: usize = 80;
/// Of what stands before `why` and `do`.
const INDENT: usize = 8;

/// Why a command failed: what, why, what to do.
#[derive(Debug)]
#[must_use]
pub struct Failure {
    exit: Exit,
    what: String,
    why: String,
    remedy: String,
}

impl Failure {
    /// `what` happened; `why`; and the `remedy`. Each is a clause without a full stop; `why` and `remedy` may be empty.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: why.into(), remedy: remedy.into() }
    }

    /// Says it on stderr and gives the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        // Where nobody can hear it, the exit code still tells.
        _ = write!(anstream::stderr(), "{self}");
        self.exit.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = AnsiColor::Red.on_default().bold();
        let label = Style::new().bold();
        let Self { exit: _, what, why, remedy } = self;
        let below = |text: &str| wrap(text, COLUMNS - INDENT).replace('\n', &format!("\n{:INDENT$}", ""));
        let [what, why, remedy] = [what, why, remedy].map(|text| below(text));
        writeln!(f, "{error}error{error:#}{label}: {what}{label:#}")?;
        if !why.is_empty() {
            writeln!(f, "   {label}why{label:#}: {why}")?;
        }
        if !remedy.is_empty() {
            writeln!(f, "    {label}do{label:#}: {remedy}")?;
        }
        Ok(())
    }
}
