//! Says why an upstream cannot be reached, or failed: what a client is told of it is the same for a wrong CA file, a dead
//! host and an answer that is no HTTP. Once a second at most, since all requests of a bad minute would say so.

use std::error::Error;

use crate::{clock::Sparing, config::settled::Route, telemetry::causes, upstream::Unsent};

/// Nothing was sent.
pub(super) fn unreachable(unsent: &Unsent) {
    static SAID: Sparing = Sparing::new();
    if let Some(untold) = SAID.turn() {
        tracing::warn!(why = causes(unsent), untold, "the upstream could not be reached; nothing was sent");
    }
}

/// A request was sent, or perhaps sent, and no answer came that can be trusted.
pub(super) fn failed(route: &Route, error: &(dyn Error + 'static)) {
    static SAID: Sparing = Sparing::new();
    if let Some(untold) = SAID.turn() {
        tracing::warn!(route = %route.name, why = causes(error), untold, "the upstream failed");
    }
}
