//! What a reload would do to live records, and what it cannot change (contract: R-5 and section 4).

use std::fmt;

use crate::rule::policy::Mode;

use super::settled::{Config, Route, Server};

/// A change that would put live records out of reach: retries of earlier requests would run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityChange {
    /// The route, as the old configuration names it.
    pub route: String,
    /// What changes.
    pub change: Change,
}

/// What of a route's identity changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The route is gone.
    Dropped,
    /// `id`, or the `name` that stands for it.
    Id,
    /// `scope`
    Scope,
    /// `key`
    Key,
    /// `fingerprint`
    Fingerprint,
    /// `authority`
    Authority,
}

impl Change {
    /// The key that changes; `None` for a route that is gone.
    #[must_use]
    pub const fn key(self) -> Option<&'static str> {
        match self {
            Self::Dropped => None,
            Self::Id => Some("id"),
            Self::Scope => Some("scope"),
            Self::Key => Some("key"),
            Self::Fingerprint => Some("fingerprint"),
            Self::Authority => Some("authority"),
        }
    }
}

impl fmt::Display for IdentityChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, change } = self;
        match change {
            Change::Dropped => {
                write!(
                    f,
                    "route `{route}` is gone: its records are out of reach, and retries of its requests run again"
                )
            }
            Change::Id => write!(
                f,
                "route `{route}`: `id` changes (it is the name when left out): its records are out of reach, and retries run \
                 again; keep the old id"
            ),
            Change::Scope => {
                write!(
                    f,
                    "route `{route}`: `scope` changes: its records are out of reach, and retries of earlier requests run again"
                )
            }
            Change::Key => write!(
                f,
                "route `{route}`: `key` changes: records may be out of reach, and retries of earlier requests run again"
            ),
            Change::Fingerprint => write!(
                f,
                "route `{route}`: `fingerprint` changes: retries of earlier requests are refused as `key-reused`"
            ),
            Change::Authority => {
                write!(
                    f,
                    "route `{route}`: `authority` changes: its records are out of reach, and retries of earlier requests run again"
                )
            }
        }
    }
}

/// What of `old` would be out of reach under `new`. A route is known by its id, else by its name, else by what it
/// matches; one that guards nothing has no records to lose.
#[must_use]
pub fn identity_changes(old: &Config, new: &Config) -> Vec<IdentityChange> {
    // What no request reaches has no records to lose, and none to take over.
    let reached =
        |config: &Config| config.fallback.clone().filter(|_| !config.routes.iter().any(|route| route.catches_all()));
    let routes = |config: &Config| config.routes.iter().cloned().chain(reached(config)).collect::<Vec<_>>();
    let (before, after) = (routes(old), routes(new));
    let mut found = Vec::new();
    for old in before.iter().filter(|route| route.policy.mode == Mode::Enforce && route.policy.scope.is_some()) {
        let changes = match successor(old, &after) {
            Some(new) => changes(old, new),
            None => vec![Change::Dropped],
        };
        found.extend(changes.into_iter().map(|change| IdentityChange { route: old.name.to_string(), change }));
    }
    found
}

fn successor<'a>(old: &Route, after: &'a [std::sync::Arc<Route>]) -> Option<&'a Route> {
    let find = |same: &dyn Fn(&Route) -> bool| after.iter().map(AsRef::as_ref).find(|new: &&Route| same(new));
    let matches = |new: &Route| (&new.host, &new.path.text, &new.methods) == (&old.host, &old.path.text, &old.methods);
    find(&|new| new.id == old.id && new.name == old.name)
        .or_else(|| find(&|new| new.id == old.id && matches(new)))
        .or_else(|| find(&|new| new.id == old.id))
        .or_else(|| find(&|new| new.name == old.name))
        .or_else(|| find(&|new| matches(new)))
}

fn changes(old: &Route, new: &Route) -> Vec<Change> {
    let (was, is) = (&old.policy, &new.policy);
    [
        (old.id != new.id, Change::Id),
        (was.scope != is.scope, Change::Scope),
        (was.key != is.key, Change::Key),
        (was.fingerprint != is.fingerprint, Change::Fingerprint),
        (was.authority != is.authority, Change::Authority),
    ]
    .into_iter()
    .filter_map(|(changed, change)| changed.then_some(change))
    .collect()
}

/// What `new` changes that a running process cannot: such a reload is refused whole.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let listen = |server: &Server| server.listen.clone();
    [
        (listen(&old.server) != listen(&new.server), "[server] listen"),
        // A listener speaks TLS or it does not; which certificate it shows may change.
        (old.server.tls.is_some() != new.server.tls.is_some(), "[server] tls"),
        (old.admin != new.admin, "[admin]"),
        (old.store != new.store, "[store]"),
    ]
    .into_iter()
    .filter_map(|(changed, what)| changed.then_some(what))
    .collect()
}
