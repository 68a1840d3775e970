//! What a command asks of the person before it, or reads for them.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use crate::cli::{Exit, Failure};

/// A file's content; `-` is stdin.
///
/// # Errors
///
/// It cannot be read.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    read.map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("{} cannot be read", file.display()),
            error.to_string(),
            "name a file that can",
        )
    })
}

/// Asks whether to go on.
///
/// # Errors
///
/// Nobody is there to be asked.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "nobody is there to confirm this",
            "stdin is no terminal",
            "look at it with --dry-run, and say --yes if that is what you want",
        ));
    }
    anstream::eprint!("{question} [y/N] ");
    // A prompt that cannot be shown is answered by nobody.
    _ = io::stderr().flush();
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}
