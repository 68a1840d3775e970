//! Requests that another route takes from now on: a reload lets this pass (contract: R-5 names what it refuses), but
//! their live records lie under the old route's id, so `check --against` says so.

use std::fmt;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    config::{
        Config,
        settled::{HostPattern, Route, Segment},
    },
    proxy::routes::Routes,
    rule::{method, policy::Mode},
};

/// Requests of one route that another takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    /// The route that took them.
    pub(super) from: String,
    /// Its id.
    pub(super) id: String,
    /// The route that takes them; `None` where no route does.
    pub(super) to: Option<String>,
    /// One such request's method and path.
    pub(super) request: String,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, id, to, request } = self;
        match to {
            Some(to) => write!(
                f,
                "route `{to}` takes requests from `{from}`, such as {request}: retries of earlier ones run again; give it \
                 id = \"{id}\" to keep their records in reach"
            ),
            None => write!(f, "no route takes requests of `{from}` any more, such as {request}"),
        }
    }
}

/// Tries one request for each pattern and guarded method of both configurations.
pub(super) fn moved(old: &Config, new: &Config) -> Vec<Moved> {
    let (before, after) = (Routes::new(old), Routes::new(new));
    let mut found: Vec<Moved> = Vec::new();
    for pattern in old.routes.iter().chain(&new.routes) {
        let (host, path) = (sample_host(pattern), sample_path(pattern));
        let common = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        for method in pattern.methods.as_deref().unwrap_or(&common) {
            let Some(was) = before.find(&host, &path, method) else { continue };
            let is = after.find(&host, &path, method);
            let holds_records = was.policy.mode == Mode::Enforce && method::guards(&was.policy, method);
            if !holds_records || is.is_some_and(|is| is.id == was.id) {
                continue;
            }
            let (from, to) = (was.name.to_string(), is.map(|is| is.name.to_string()));
            if !found.iter().any(|known| known.from == from && known.to == to) {
                found.push(Moved { from, id: was.id.clone(), to, request: format!("{method} {}", pattern.path.text) });
            }
        }
    }
    found
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
