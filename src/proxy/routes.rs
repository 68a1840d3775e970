//! Which route a request meets (contract: R-1).
//!
//! The most specific wins, not the first: an exact host before `*.`, the longest `*.` before the shorter, those before
//! none; then segment by segment a literal before `{x}` before `{*x}`; then `methods` before none. Where the most
//! specific route's `methods` do not hold the request's, the next less specific one is asked.
//!
//! A request's segments are compared percent-decoded, so that `/v1/%63harges` is `/v1/charges`; an encoded slash splits
//! nothing. Looking up allocates nothing.

use std::{cmp::Ordering, fmt, sync::Arc};

use http::Method;
use percent_encoding::percent_decode;

use crate::config::settled::{Config, HostPattern, PathPattern, Route, Segment};

/// Every route of a configuration, ordered for look-up.
#[derive(Debug)]
pub struct Routes {
    /// Sorted by host.
    exact: Vec<(String, Node)>,
    /// `.example.com`, the longest first.
    suffixes: Vec<(String, Node)>,
    any: Node,
    fallback: Option<Arc<Route>>,
    /// In the file's order.
    all: Vec<Arc<Route>>,
}

/// Why a route is not the one that a request meets, or that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Considered {
    /// It is the one.
    Chosen,
    /// It is for other hosts.
    Host,
    /// It is for other paths.
    Path,
    /// It is for other methods.
    Method,
    /// It would match, but a more specific one does too.
    LessSpecific,
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen => "matches",
            Self::Host => "is for another host",
            Self::Path => "is for another path",
            Self::Method => "is for other methods",
            Self::LessSpecific => "matches too, less specifically",
        })
    }
}

/// Where a path may go on after some segments.
#[derive(Debug, Default)]
struct Node {
    /// Sorted.
    literals: Vec<(String, Self)>,
    parameter: Option<Box<Self>>,
    /// Routes that end here.
    here: Leaves,
    /// Routes whose `{*x}` takes what follows.
    rest: Leaves,
}

/// Routes of one pattern: those with `methods` first.
#[derive(Debug, Default)]
struct Leaves(Vec<Arc<Route>>);

impl Routes {
    /// Orders the routes of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let mut routes = Self {
            exact: Vec::new(),
            suffixes: Vec::new(),
            any: Node::default(),
            fallback: config.fallback.clone(),
            all: config.routes.clone(),
        };
        for route in &config.routes {
            let root = match &route.host {
                HostPattern::Exact(host) => entry(&mut routes.exact, host),
                HostPattern::Suffix(suffix) => entry(&mut routes.suffixes, suffix),
                HostPattern::Any => &mut routes.any,
            };
            root.insert(&route.path.segments, route);
        }
        routes.suffixes.sort_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        routes
    }

    /// The route that a request meets: `host` is its authority, with or without a port; `path` its path as sent, without
    /// the query. `None` where no route matches and there is no fallback.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<Route>> {
        self.matching(host_name(host), path, method).or(self.fallback.as_ref())
    }

    fn matching(&self, host: &str, path: &str, method: &Method) -> Option<&Arc<Route>> {
        // `*` of OPTIONS has no segments: no pattern matches it.
        let path = path.strip_prefix('/')?;
        let exact = self.exact.binary_search_by(|(name, _)| compare_host(name, host)).ok().map(|at| &self.exact[at].1);
        let suffixes = self.suffixes.iter().filter(|(suffix, _)| below(suffix, host)).map(|(_, node)| node);
        exact.into_iter().chain(suffixes).chain([&self.any]).find_map(|root| root.find(Some(path), method))
    }

    /// Every route in the file's order, the fallback last, and why it is or is not the one.
    #[must_use]
    pub fn consider(&self, host: &str, path: &str, method: &Method) -> Vec<(Arc<Route>, Considered)> {
        let chosen = self.find(host, path, method);
        let consider = |route: &Arc<Route>| {
            let holds = |methods: &Vec<Method>| methods.contains(method);
            if chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, route)) {
                Considered::Chosen
            } else if !host_matches(&route.host, host_name(host)) {
                Considered::Host
            } else if !path_matches(&route.path, path) {
                Considered::Path
            } else if !route.methods.as_ref().is_none_or(holds) {
                Considered::Method
            } else {
                Considered::LessSpecific
            }
        };
        self.all.iter().chain(&self.fallback).map(|route| (Arc::clone(route), consider(route))).collect()
    }
}

impl Node {
    fn insert(&mut self, segments: &[Segment], route: &Arc<Route>) {
        match segments {
            [] => self.here.insert(route),
            [Segment::Literal(text), rest @ ..] => entry(&mut self.literals, text).insert(rest, route),
            [Segment::Parameter(_), rest @ ..] => self.parameter.get_or_insert_default().insert(rest, route),
            [Segment::Rest(_), ..] => self.rest.insert(route),
        }
    }

    /// `path` is what is left of it without its slash; `None` when nothing, not even an empty segment, is left. Each node
    /// is visited at most once, since its depth says where in the path it stands.
    fn find(&self, path: Option<&str>, method: &Method) -> Option<&Arc<Route>> {
        let Some(path) = path else { return self.here.find(method) };
        let (segment, rest) = match memchr::memchr(b'/', path.as_bytes()) {
            Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
            None => (path, None),
        };
        self.literal(segment)
            .and_then(|node| node.find(rest, method))
            .or_else(|| self.parameter.as_ref().filter(|_| !segment.is_empty())?.find(rest, method))
            .or_else(|| self.rest.find(method))
    }

    fn literal(&self, segment: &str) -> Option<&Self> {
        if memchr::memchr(b'%', segment.as_bytes()).is_none() {
            let at = self.literals.binary_search_by(|(text, _)| text.as_str().cmp(segment)).ok()?;
            return Some(&self.literals[at].1);
        }
        self.literals.iter().find(|(text, _)| literal_matches(text, segment)).map(|(_, node)| node)
    }
}

impl Leaves {
    fn insert(&mut self, route: &Arc<Route>) {
        let at = if route.methods.is_some() { 0 } else { self.0.len() };
        self.0.insert(at, Arc::clone(route));
    }

    fn find(&self, method: &Method) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| route.methods.as_ref().is_none_or(|methods| methods.contains(method)))
    }
}

/// The value under a text in a sorted list.
fn entry<'a>(list: &'a mut Vec<(String, Node)>, text: &str) -> &'a mut Node {
    let at = match list.binary_search_by(|(known, _)| known.as_str().cmp(text)) {
        Ok(at) => at,
        Err(at) => {
            list.insert(at, (text.to_owned(), Node::default()));
            at
        }
    };
    &mut list[at].1
}

/// A host without its port, and without the dot that may end a name.
fn host_name(authority: &str) -> &str {
    let host = match (authority.rfind(':'), authority.ends_with(']')) {
        (Some(colon), false) => &authority[..colon],
        (Some(_) | None, _) => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Orders a configured host, in lower case, against a request's.
fn compare_host(name: &str, host: &str) -> Ordering {
    name.bytes().cmp(host.bytes().map(|byte| byte.to_ascii_lowercase()))
}

/// Whether a host is a name below a suffix, `.example.com`.
fn below(suffix: &str, host: &str) -> bool {
    let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
    host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
        HostPattern::Suffix(suffix) => below(suffix, host),
        HostPattern::Any => true,
    }
}

fn literal_matches(text: &str, segment: &str) -> bool {
    percent_decode(segment.as_bytes()).eq(text.bytes())
}

fn path_matches(pattern: &PathPattern, path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let mut segments = path.split('/');
    for part in &pattern.segments {
        let matches = match (part, segments.next()) {
            (Segment::Rest(_), Some(_)) => return true,
            (Segment::Literal(text), Some(segment)) => literal_matches(text, segment),
            (Segment::Parameter(_), Some(segment)) => !segment.is_empty(),
            (Segment::Literal(_) | Segment::Parameter(_) | Segment::Rest(_), None) => false,
        };
        if !matches {
            return false;
        }
    }
    segments.next().is_none()
}
