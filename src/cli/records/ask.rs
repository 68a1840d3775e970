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
            Exit::Failure,
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
    // A prompt that cannot be shown is answered by nobody.
    let mut stderr = anstream::stderr();
    _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(["y", "Y\n", "yes", "Yes\r\n", " YES "].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "no", "yess", "y e s", "ja"].into_iter().any(is_yes));
    }
}
