//! Says why an upstream cannot be reached, or failed: what a client is told of it is the same for a wrong CA file, a dead
//! host and an answer that is no HTTP. Once a second at most, since all requests of a bad minute would say so.

use std::error::Error;

use crate::{clock::Sparing, config::settled::Route, upstream::Unsent};

/// Nothing was sent.
pub(super) fn unreachable(unsent: &Unsent) {
    static SAID: Sparing = Sparing::new();
    if let Some(untold) = SAID.turn() {
        let why = chain(unsent);
        tracing::warn!(why, untold, "the upstream could not be reached; nothing was sent");
    }
}

/// A request was sent, or perhaps sent, and no answer came that can be trusted.
pub(super) fn failed(route: &Route, error: &(dyn Error + 'static)) {
    static SAID: Sparing = Sparing::new();
    if let Some(untold) = SAID.turn() {
        tracing::warn!(route = %route.name, why = chain(error), untold, "the upstream failed");
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
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

    #[test]
    fn a_cause_is_said_once() {
        let refused = io::Error::other("no CR LF");
        assert_eq!(chain(&Unsent::Connect(refused)), "no connection could be made: no CR LF");
        assert_eq!(chain(&Unsent::QueueTimeout), "no connection became free in time");
    }
}
