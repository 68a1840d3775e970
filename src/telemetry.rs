//! What operators see: metrics, one access line a request, and events.
//!
//! A leaf: it counts and tells what it is handed, and decides nothing. Labels are route names and enums, never anything
//! that a client sent (contract: section 10); no line ever holds a key, a scope value, a query, a field value or a body.

pub mod access;
pub mod log;
pub mod metrics;
mod process;

use std::error::Error;

/// An error with all its causes, in one line.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some repeat what their source says.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("no connection could be made")]
        Connect(#[source] io::Error),
        #[error("not valid: {0}")]
        Quoting(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = || io::Error::other("no CR LF");
        assert_eq!(causes(&Failed::Connect(cause())), "no connection could be made: no CR LF");
        assert_eq!(causes(&Failed::Quoting(cause())), "not valid: no CR LF");
        assert_eq!(causes(&cause()), "no CR LF");
    }
}
