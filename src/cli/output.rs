//! Where a command's words go: results to stdout, all else to stderr. Neither need be there to be written to.

use std::{
    fmt,
    io::{self, Write as _},
};

use super::{Exit, Failure};

/// Writes results as they are. A reader that has seen enough, as in `records list | head`, stops nothing that is under
/// way.
///
/// # Errors
///
/// They cannot be written: the disk is full.
pub(super) fn put(results: impl fmt::Display) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    match write!(stdout, "{results}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says something on stderr, a line. That nobody can hear it is no reason to fail.
pub(super) fn say(words: impl fmt::Display) {
    _ = writeln!(anstream::stderr(), "{words}");
}

/// What a command says whose results are lost.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    Failure::new(Exit::Failure, "the results cannot be written", error.to_string(), "")
}
