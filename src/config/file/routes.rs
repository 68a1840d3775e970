//! `[[routes]]`, each laid over `[defaults]`, and what requests meet that no route matches.

use std::{collections::HashMap, sync::Arc};

use http::Method;

use crate::{
    config::{
        diagnostic::Diagnostic,
        policy::{Layer, SCOPE_HELP, guards_something},
        section::{Section, Span},
        settled::{HostPattern, PathPattern, Route, Segment, Server, Store},
        value::{self, Wrong},
    },
    rule::{
        RouteName, method,
        policy::{FingerprintPart, Mode},
    },
};

use super::{FALLBACK, NO_ROUTE};

/// What routes are checked against.
pub(super) struct Whole<'a> {
    pub(super) server: &'a Server,
    pub(super) store: &'a Store,
    pub(super) upstream_names: &'a [String],
}

impl Whole<'_> {
    fn client_certificates(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
}

/// A route as read; `route` is `None` when it cannot be told which requests it is for.
pub(super) struct ReadRoute<'r, 't> {
    pub(super) section: Section<'r, 't>,
    /// Its name, whatever else of it cannot be read.
    name: Option<RouteName>,
    pub(super) route: Option<Route>,
}

pub(super) fn route<'r, 't>(section: Section<'r, 't>, defaults: &Layer, whole: &Whole<'_>) -> ReadRoute<'r, 't> {
    let reader = section.reader;
    let required = |key: &'static str, help: &str| {
        if section.get(key).is_none() {
            reader.error(&section.span, format!("a route without `{key}`"), "", help);
        }
    };
    required("name", "say how metrics and logs call it: name = \"create charge\"");
    required("path", "say which requests it is for: path = \"/v1/charges\", or \"/{*rest}\" for all");
    let name = section.read("name", value::route_name);
    let id = section.read("id", value::line);
    let host = section.read("host", value::host);
    let path = section.read("path", value::path);
    if path.as_ref().is_some_and(|path| looks_like_a_pattern_of_others(&path.value)) {
        let help = "say {id} for one segment and {*rest} for all that follow; where it is meant as it stands, write \
                    %3A for : and %2A for *";
        reader.warn(&section.place("path"), "`:` and `*` match nothing but themselves in a path", help);
    }
    let methods = section.list("methods", value::method);
    let upstream = upstream(&section, whole);
    let layer = defaults.read(&section);
    layer.relate(&section, &section.span, Some(whole.store), whole.client_certificates());
    if methods.as_ref().is_some_and(|methods| methods.value.is_empty()) {
        reader.error(
            &section.place("methods"),
            "`methods` is empty",
            "",
            "the route would match nothing: leave it out for all methods",
        );
    }
    let methods = methods.map(|methods| methods.value.into_iter().map(|method| method.value).collect::<Vec<_>>());
    // One that was given and could not be read is not one that is left out.
    let told = |key: &'static str, is_read: bool| is_read || section.get(key).is_none();
    let knows_methods = told("methods", methods.is_some());
    let is_told = knows_methods && told("host", host.is_some());
    let guarded = guards(&layer, methods.as_deref());
    if guarded && !layer.has_scope() && knows_methods {
        reader.error(&section.span, "a guarded route without `scope`", "", SCOPE_HELP);
    }
    if !guarded && layer.policy().mode != Mode::Off && knows_methods {
        let help =
            "say guard = [\"PUT\"] to guard methods that HTTP calls idempotent, or mode = \"off\" if that is meant";
        reader.warn(&section.place("methods"), "a route that guards none of its methods", help);
    }
    let name = name.map(|name| RouteName(Arc::from(name.value)));
    let route = name.clone().zip(path).filter(|_| is_told).map(|(name, path)| Route {
        id: id.map_or_else(|| name.to_string(), |id| id.value),
        name,
        host: host.map_or(HostPattern::Any, |host| host.value),
        path: path.value,
        methods,
        upstream: upstream.unwrap_or(0),
        policy: layer.settle(),
    });
    ReadRoute { section, name, route }
}

/// `/users/:id`, `/files/*`: patterns elsewhere. Here such a route is for one odd path, and what it was meant for
/// goes past it.
fn looks_like_a_pattern_of_others(path: &PathPattern) -> bool {
    path.text.split('/').any(|segment| !segment.starts_with('{') && (segment.starts_with(':') || segment.contains('*')))
}

/// Whether any request for these methods is guarded.
fn guards(layer: &Layer, methods: Option<&[Method]>) -> bool {
    let policy = layer.policy();
    if policy.mode == Mode::Off {
        return false;
    }
    let guarded = |methods: &[Method]| methods.iter().any(|method| method::guards(policy, method));
    methods.map_or_else(|| guards_something(&policy.guard), guarded)
}

/// The index of a route's upstream.
fn upstream(section: &Section<'_, '_>, whole: &Whole<'_>) -> Option<usize> {
    let names = whole.upstream_names;
    if section.get("upstream").is_none() {
        if names.len() > 1 {
            let message = "a route without `upstream`, and there are several";
            section.reader.error(&section.span, message, "", format!("say one of {}", quoted(names)));
        }
        return None;
    }
    let found = section.read("upstream", |text| {
        let found = names.iter().position(|name| name == text);
        found.ok_or_else(|| {
            let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, text));
            let near = near.filter(|name| strsim::damerau_levenshtein(name, text) <= name.len() / 3);
            Wrong {
                message: match near {
                    Some(near) => format!("there is no such upstream; did you mean \"{near}\"?"),
                    None => "there is no such upstream".to_owned(),
                },
                help: if names.is_empty() {
                    "define it: [upstreams.payments], and below it url = \"http://127.0.0.1:9000\"".to_owned()
                } else {
                    format!("say {}, or define [upstreams.NAME]", quoted(names))
                },
            }
        })
    });
    found.map(|found| found.value)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Names are labels of metrics: each is one route's own.
pub(super) fn check_names(read: &[ReadRoute<'_, '_>]) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for (section, name) in read.iter().filter_map(|read| Some((&read.section, &*read.name.as_ref()?.0))) {
        let place = section.place("name");
        let taken = [
            (FALLBACK, "is what requests meet that no route matches"),
            (NO_ROUTE, "is the label of what is refused before its route is known"),
        ];
        if let Some((taken, what)) = taken.iter().find(|(taken, _)| *taken == name) {
            let help = format!("choose another: \"{taken}\" {what}");
            section.reader.error(&place, format!("a route named \"{taken}\""), "", help);
        }
        if let Some(first) = seen.get(name) {
            let help = "give each its own: names are the labels of metrics";
            let label = format!("the first is in line {}", section.reader.source.position(first.start).0);
            section.reader.error(&place, "a second route of this name", &label, help);
        } else {
            seen.insert(name, place);
        }
    }
    check_ids(read);
}

/// Routes may share an id, so that one may be divided and its records stay in reach. Then the path must tell their requests
/// apart: else each would answer for the other.
fn check_ids(read: &[ReadRoute<'_, '_>]) {
    let by_path = |route: &Route| route.policy.fingerprint.contains(&FingerprintPart::Path);
    let mut seen: HashMap<&str, &Route> = HashMap::new();
    for (section, route) in read.iter().filter_map(|read| Some((&read.section, read.route.as_ref()?))) {
        let other = seen.insert(&*route.id, route).filter(|other| other.name != route.name);
        if let Some(other) = other.filter(|other| !by_path(other) || !by_path(route)) {
            let place = section.place(if *route.id == *route.name.0 { "name" } else { "id" });
            let message = format!("the id of route `{}` too, and `fingerprint` leaves the path out", other.name);
            let help =
                "give each its own id, or say \"path\" in both fingerprints: records of one would answer for the other";
            section.reader.error(&place, message, "", help);
        }
    }
}

/// No two routes may match the same host, path and method (contract: section 4).
pub(super) fn check_duplicates(read: &[ReadRoute<'_, '_>]) {
    let routes: Vec<_> = read.iter().filter_map(|read| Some((&read.section, read.route.as_ref()?))).collect();
    let mut by_shape: HashMap<Place<'_>, Vec<(&Route, Span)>> = HashMap::new();
    for (section, route) in routes {
        let earlier = by_shape.entry((&route.host, shape(&route.path))).or_default();
        let place = section.place("path");
        if let Some((same, its)) = earlier.iter().find(|(earlier, _)| share_method(earlier, route)) {
            section.reader.error(
                &place,
                format!("route `{}` matches the same requests as `{}`", route.name, same.name),
                &format!("as in line {}", section.reader.source.position(its.start).0),
                "tell them apart by host, path or methods, or leave one out",
            );
        }
        earlier.push((route, place));
    }
}

/// The hosts and paths that a route is for.
type Place<'a> = (&'a HostPattern, Vec<Shape<'a>>);

/// A segment less its parameter's name, which does not tell routes apart.
#[derive(PartialEq, Eq, Hash)]
enum Shape<'a> {
    Literal(&'a str),
    Parameter,
    Rest,
}

fn shape(path: &PathPattern) -> Vec<Shape<'_>> {
    path.segments
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => Shape::Literal(text),
            Segment::Parameter(_) => Shape::Parameter,
            Segment::Rest(_) => Shape::Rest,
        })
        .collect()
}

/// A route with `methods` is more specific than one without: those two do not clash.
fn share_method(one: &Route, other: &Route) -> bool {
    match (&one.methods, &other.methods) {
        (None, None) => true,
        (Some(one), Some(other)) => one.iter().any(|method| other.contains(method)),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether there are requests that no route matches.
fn falls_back(read: &[ReadRoute<'_, '_>]) -> bool {
    !read.iter().filter_map(|read| read.route.as_ref()).any(Route::catches_all)
}

/// What requests meet that no route matches: the only upstream with `[defaults]` (contract: R-1).
pub(super) fn fallback(
    top: &Section<'_, '_>,
    section: Option<&Section<'_, '_>>,
    defaults: &Layer,
    read: &[ReadRoute<'_, '_>],
    whole: &Whole<'_>,
) -> Route {
    let mut layer = defaults.clone();
    if falls_back(read) {
        let section = section.unwrap_or(top);
        layer.relate(section, &section.span, Some(whole.store), whole.client_certificates());
        if layer.policy().mode != Mode::Off && !guards(&layer, None) {
            let help = "say guard = \"non-idempotent\", or mode = \"off\" if that is meant";
            section.reader.warn(&section.place("guard"), "requests that no route matches are not guarded", help);
        }
        // A route that could not be read may be the one that catches all.
        let told = read.iter().all(|read| read.route.is_some());
        if guards(&layer, None) && !layer.has_scope() && told {
            let error = Diagnostic::error("requests that no route matches are guarded, without `scope`");
            let error = error.help(format!("in [defaults] {SCOPE_HELP}"));
            let span = section.span.clone();
            top.reader.push(if span.is_empty() { error } else { error.at(&top.reader.source, span) });
        }
    } else {
        // Only `OPTIONS *` comes here.
        layer = layer.off();
    }
    Route {
        name: RouteName(Arc::from(FALLBACK)),
        id: FALLBACK.to_owned(),
        host: HostPattern::Any,
        path: PathPattern { text: "/{*rest}".to_owned(), segments: vec![Segment::Rest("rest".to_owned())] },
        methods: None,
        upstream: 0,
        policy: layer.settle(),
    }
}
