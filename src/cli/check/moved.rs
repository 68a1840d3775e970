//! Requests that are no longer guarded by what they were guarded by: a reload lets this pass (contract: R-5 names what it
//! refuses), but their live records are not looked at any more, so `check --against` and the reload say so.

use std::{fmt, sync::Arc};

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    config::{
        Config,
        settled::{HostPattern, Route, Segment},
    },
    proxy::routes::Routes,
    rule::{
        method,
        policy::{Guard, Mode},
    },
};

/// Requests whose records are out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Moved {
    /// The route that guarded them.
    pub(super) from: String,
    /// Its id.
    pub(super) id: String,
    /// What becomes of them.
    pub(super) then: Then,
    /// One such request's method and path.
    pub(super) request: String,
}

/// What becomes of requests that a route guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// No route takes them.
    Gone,
    /// This route guards them, under an id of its own.
    Guarded(String),
    /// So does what no route matches, which can have no other id than its own.
    FallenBack(String),
    /// This route observes them.
    Observed(String),
    /// This route passes them.
    Passed(String),
}

impl Moved {
    /// The route that takes them now; `None` where none does.
    pub(super) fn to(&self) -> Option<&str> {
        match &self.then {
            Then::Gone => None,
            Then::Guarded(to) | Then::FallenBack(to) | Then::Observed(to) | Then::Passed(to) => Some(to),
        }
    }

    /// Whether the route is the same, and only what it does to them is another.
    pub(super) fn stays(&self) -> bool {
        self.to() == Some(&self.from)
    }

    /// Whether nothing guards them any more.
    pub(super) fn is_unguarded(&self) -> bool {
        match self.then {
            Then::Gone | Then::Guarded(_) | Then::FallenBack(_) => false,
            Then::Observed(_) | Then::Passed(_) => true,
        }
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, id, then, request } = self;
        let (to, how) = match then {
            Then::Gone => return write!(f, "no route takes requests of `{from}` any more, such as {request}"),
            Then::Guarded(to) => {
                return write!(
                    f,
                    "route `{to}` takes requests from `{from}`, such as {request}: retries of earlier ones run again; give it \
                     id = \"{id}\" to keep their records in reach"
                );
            }
            Then::FallenBack(to) => {
                return write!(
                    f,
                    "`{to}` takes requests from `{from}`, such as {request}: retries of earlier ones run again; keep a route \
                     of that path with id = \"{id}\" to keep their records in reach"
                );
            }
            Then::Observed(to) => (to, "observes"),
            Then::Passed(to) => (to, "passes"),
        };
        let who = if to == from { "it".to_owned() } else { format!("`{from}`") };
        write!(
            f,
            "route `{to}` {how} requests that {who} guarded, such as {request}: the records of enforcing are not looked at \
             meanwhile, so a retry of what was executed before runs again"
        )
    }
}

/// Tries one request for each pattern and guarded method of both configurations.
pub(in crate::cli) fn moved(old: &Config, new: &Config) -> Vec<Moved> {
    let (before, after) = (Routes::new(old), Routes::new(new));
    let patterns = |config: &Config| config.routes.iter().chain(&config.fallback).cloned().collect::<Vec<_>>();
    let patterns = [patterns(old), patterns(new)].concat();
    let common = common_methods(&patterns);
    let mut found: Vec<Moved> = Vec::new();
    for pattern in &patterns {
        let (host, path) = (sample_host(pattern), sample_path(pattern));
        for method in pattern.methods.as_deref().unwrap_or(&common) {
            let Some(was) = before.find(&host, &path, method).filter(|was| holds_records(was, method)) else {
                continue;
            };
            let then = match after.find(&host, &path, method) {
                None => Then::Gone,
                Some(is) if holds_records(is, method) && is.id == was.id => continue,
                Some(is) if holds_records(is, method) => {
                    let falls_back = new.fallback.as_ref().is_some_and(|fallback| Arc::ptr_eq(fallback, is));
                    if falls_back { Then::FallenBack(is.name.to_string()) } else { Then::Guarded(is.name.to_string()) }
                }
                Some(is) if is.policy.mode == Mode::Observe && method::guards(&is.policy, method) => {
                    Then::Observed(is.name.to_string())
                }
                Some(is) => Then::Passed(is.name.to_string()),
            };
            let from = was.name.to_string();
            if !found.iter().any(|known| known.from == from && known.then == then) {
                found.push(Moved {
                    from,
                    id: was.id.clone(),
                    then,
                    request: format!("{method} {}", pattern.path.text),
                });
            }
        }
    }
    found
}

/// Whether such a request of this route is guarded, and so may have a record.
fn holds_records(route: &Route, method: &Method) -> bool {
    route.policy.mode == Mode::Enforce && method::guards(&route.policy, method)
}

/// What is tried where a route is for all methods: the usual ones, and those that any route lists.
fn common_methods(routes: &[Arc<Route>]) -> Vec<Method> {
    let mut methods = vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    for route in routes {
        let guarded = match &route.policy.guard {
            Guard::NonIdempotent => &[][..],
            Guard::Methods(guarded) => guarded,
        };
        for method in guarded.iter().chain(route.methods.iter().flatten()) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
    }
    methods
}

fn sample_host(route: &Route) -> String {
    match &route.host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("sample{suffix}"),
        HostPattern::Any => String::new(),
    }
}

fn sample_path(route: &Route) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Literal(text) => format!("/{}", utf8_percent_encode(text, NON_ALPHANUMERIC)),
        Segment::Parameter(_) | Segment::Rest(_) => "/~sample".to_owned(),
    };
    route.path.segments.iter().map(segment).collect()
}
