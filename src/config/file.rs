//! One whole file: its tables read, its routes laid over `[defaults]`, and every relation between them checked.

mod routes;

use std::{path::Path, sync::Arc, time::Duration};

use toml::de::{DeTable, DeValue};

use crate::rule::{
    Policy,
    policy::{Mode, Scope, ScopePart},
};

use self::routes::{ReadRoute, Whole, check_duplicates, check_names, fallback, route};
use super::{
    Overrides, Warning,
    diagnostic::{Diagnostic, Source},
    files::Named,
    policy::Layer,
    reference::Table,
    section::{Reader, Section},
    settled::{Address, Admin, Config, Log, PathPattern, Route, Segment, Server, Store, StoreKind, Upstream},
    tables::{self, FileNames},
    value::{self, Wrong},
};

/// The name and id of what requests meet that no route matches.
pub(crate) const FALLBACK: &str = "default";

/// What metrics and logs call the route of a request that has none, or was refused before it was known.
pub(crate) const NO_ROUTE: &str = "none";

/// What a file comes to: the configuration is of use only when nothing in `found` is an error.
pub(crate) struct Outcome {
    pub(crate) config: Config,
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) named: Vec<Named>,
}

/// Reads a whole file.
pub(crate) fn read(
    source: &Arc<Source>,
    document: &DeTable<'_>,
    base: &Path,
    overrides: &Overrides,
    scope: Option<Scope>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Outcome {
    let reader = Reader::new(Arc::clone(source), env);
    let mut files = FileNames { base, named: Vec::new() };
    let top = Section::new(&reader, Table::Top.title(), &[Table::Top], 0..0, document);
    version(&top);

    let server_section = top.table("server", &[Table::Server], "[server]");
    let mut server =
        server_section.as_ref().map_or_else(Server::default, |section| tables::server(section, &mut files));
    let admin_section = top.table("admin", &[Table::Admin], "[admin]");
    let mut admin = admin_section.as_ref().map_or_else(Admin::default, |section| tables::admin(section, &mut files));
    let log = top.table("log", &[Table::Log], "[log]").map_or_else(Log::default, |section| tables::log(&section));
    let store = top
        .table("store", &[Table::Store], "[store]")
        .map_or_else(Store::default, |section| tables::store(&section, &mut files));
    let data = listen(&reader, server_section.as_ref(), ("--listen", overrides.listen.as_deref()), &server.listen);
    let operators = listen(&reader, admin_section.as_ref(), ("--admin", overrides.admin.as_deref()), &admin.listen);
    if let (Some(data), Some(operators)) = (&data, &operators)
        && tables::overlap(data, operators)
    {
        let section = admin_section.as_ref().or(server_section.as_ref());
        reader.push(same_place(section, overrides));
    }
    server.listen = data.unwrap_or(server.listen);
    admin.listen = operators.unwrap_or(admin.listen);

    if server.proxy_protocol && server.trusted_proxies.is_empty() && matches!(server.listen, Address::Tcp(_)) {
        let help =
            "say whose headers are believed: trusted_proxies = [\"10.0.0.0/8\"]; anybody else could name any client";
        let error = Diagnostic::error("`proxy_protocol` without `trusted_proxies`").help(help);
        reader.push(match &server_section {
            Some(section) => error.at(source, section.place("proxy_protocol")),
            None => error,
        });
    }

    let mut upstreams = tables::upstreams(&top, &mut files);
    override_upstream(&reader, overrides.upstream.as_deref(), &mut upstreams);
    let upstream_names: Vec<_> = upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    let misspelt = top.entries().any(|entry| entry.key == "upstream");
    let unnamed = top
        .get("upstreams")
        .is_none_or(|entry| matches!(entry.value.get_ref(), DeValue::Table(named) if named.is_empty()));
    if upstreams.is_empty() && unnamed && !misspelt && overrides.upstream.is_none() {
        let error = Diagnostic::error("there is no upstream");
        reader.push(
            error.help("say where requests go: [upstreams.payments], and below it url = \"http://127.0.0.1:9000\""),
        );
    }

    let whole = Whole { server: &server, store: &store, upstream_names: &upstream_names };
    let builtin = Layer::default();
    let builtin = match scope {
        Some(scope) => builtin.with_scope(scope),
        None => builtin,
    };
    let defaults_section = top.table("defaults", &[Table::Policy], "[defaults]");
    let defaults = defaults_section.as_ref().map_or_else(|| builtin.clone(), |section| builtin.read(section));
    let read: Vec<_> = top
        .tables("routes", &[Table::Route, Table::Policy])
        .into_iter()
        .map(|section| route(section, &defaults, &whole))
        .collect();
    check_names(&read);
    check_duplicates(&read);
    // Without any upstream the file is refused; what else it lacks is said all the same.
    let fallback =
        (upstream_names.len() < 2).then(|| fallback(&top, defaults_section.as_ref(), &defaults, &read, &whole));
    warn(&reader, &top, &whole, &read, fallback.as_ref());

    let config = Config {
        server,
        admin,
        log,
        store,
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        routes: read.into_iter().filter_map(|read| read.route).map(Arc::new).collect(),
        fallback: fallback.map(Arc::new),
        defaults: defaults.into_policy(),
    };
    Outcome { config, named: files.named, found: reader.into_found() }
}

/// The language's version, of which there is one.
fn version(top: &Section<'_, '_>) {
    let Some(entry) = top.get("version") else { return };
    if matches!(entry.value.get_ref(), DeValue::Integer(number) if number.as_str() != "1") {
        let help = "say version = 1, or leave it out; for a later one take a later oncegate";
        let message = "a version of the language that this oncegate does not know";
        return top.reader.error(&entry.value.span(), message, "", help);
    }
    top.integer("version");
}

/// Where to listen: as the flag says, or the file, or by default; `None` where what is said cannot be read.
fn listen(
    reader: &Reader<'_>,
    section: Option<&Section<'_, '_>>,
    (flag, text): (&str, Option<&str>),
    default: &Address,
) -> Option<Address> {
    let in_file = section.filter(|section| section.get("listen").is_some());
    let in_file = in_file.map(|section| section.read("listen", value::address).map(|spot| spot.value));
    let Some(text) = text else { return in_file.unwrap_or_else(|| Some(default.clone())) };
    value::address(text).map_err(|wrong| reader.push(flag_error(flag, text, wrong))).ok()
}

/// Requests and operators would share one address: a flag's fault where one says so, else the file's.
fn same_place(section: Option<&Section<'_, '_>>, overrides: &Overrides) -> Diagnostic {
    let message = "[admin] listens where [server] does";
    let given = [("--admin", &overrides.admin), ("--listen", &overrides.listen)];
    if let Some((flag, text)) = given.into_iter().find_map(|(flag, text)| Some((flag, text.as_deref()?))) {
        let help = "health and metrics are never on the data port: say --admin 127.0.0.1:9464".to_owned();
        return flag_error(flag, text, Wrong { message: message.to_owned(), help });
    }
    let error = Diagnostic::error(message)
        .help("health and metrics are never on the data port: say [admin] listen = \"127.0.0.1:9464\"");
    match section {
        Some(section) => error.at(&section.reader.source, section.place("listen")),
        None => error,
    }
}

fn flag_error(flag: &str, text: &str, Wrong { message, help }: Wrong) -> Diagnostic {
    Diagnostic::error(format!("`{flag}`: {message}")).at(&Source::new(flag, text), 0..text.len()).help(help)
}

/// `--upstream` takes the place of the only upstream's url.
fn override_upstream(reader: &Reader<'_>, text: Option<&str>, upstreams: &mut Vec<Upstream>) {
    let Some(text) = text else { return };
    let url = match value::upstream_url(text) {
        Ok(url) => url,
        Err(wrong) => return reader.push(flag_error("--upstream", text, wrong)),
    };
    match &mut upstreams[..] {
        [] => upstreams.push(Upstream::new(FALLBACK, vec![url])),
        [only] => only.urls = vec![url],
        [_, _, ..] => {
            let message = "the file has several upstreams, of which one cannot be chosen";
            let help = "leave --upstream out, or change the url in the file";
            reader.push(flag_error("--upstream", text, Wrong { message: message.to_owned(), help: help.to_owned() }));
        }
    }
}

/// What an operator should know, beside what was noted on the way.
fn warn(
    reader: &Reader<'_>,
    top: &Section<'_, '_>,
    whole: &Whole<'_>,
    read: &[ReadRoute<'_, '_>],
    fallback: Option<&Route>,
) {
    let place = |diagnostic: Diagnostic, key: &'static str| match top.get(key) {
        Some(entry) => diagnostic.at(&reader.source, entry.key_span),
        None => diagnostic,
    };
    if matches!(whole.store.kind, StoreKind::Memory { .. }) {
        let warning = Warning::warning("records live in this process only: a restart or a second replica forgets them");
        reader.push(place(warning.help("run one replica, and expect a retry after its restart to run again"), "store"));
    }
    let routes = || read.iter().filter_map(|read| read.route.as_ref()).chain(fallback);
    let active = || routes().filter(|route| route.policy.mode != Mode::Off);
    let patience = active().map(|route| route.policy.response_timeout).max().unwrap_or(Duration::ZERO);
    // The defaults themselves are in that order: who chose neither need not be told at every start.
    let chosen =
        (whole.server.drain_timeout, patience) != (Server::default().drain_timeout, Policy::default().response_timeout);
    if chosen && whole.server.drain_timeout < patience {
        let message = format!(
            "`drain_timeout` ({}) is shorter than `response_timeout` ({})",
            value::show_duration(whole.server.drain_timeout),
            value::show_duration(patience)
        );
        let help = "what is under way when the drain ends becomes unknown: raise drain_timeout, and the supervisor's patience with it";
        reader.push(place(Warning::warning(message).help(help), "server"));
    }
    let largest = active().map(|route| route.policy.max_request_body.max(route.policy.max_response_body)).max();
    if largest.is_some_and(|largest| largest > whole.server.max_buffered) {
        let message = "a route holds bodies longer than `max_buffered`";
        let help = "such a request is refused as overloaded each time: raise [server] max_buffered, or lower max_request_body or max_response_body";
        reader.push(place(Warning::warning(message).help(help), "server"));
    }
    for ReadRoute { section, route, .. } in read {
        if route.as_ref().is_some_and(|route| route.policy.mode != Mode::Off && is_grpc(&route.path)) {
            let help = "gRPC is passed unguarded whatever the route says: its calls have no idempotency keys";
            reader.warn(&section.place("path"), "a path that looks like a gRPC method", help);
        }
    }
}

/// `/package.Service/Method`, `/package.Service/{*method}`.
fn is_grpc(path: &PathPattern) -> bool {
    let service = |text: &str| {
        text.rsplit_once('.').is_some_and(|(_, service)| service.starts_with(|first: char| first.is_ascii_uppercase()))
    };
    match &path.segments[..] {
        [Segment::Literal(first), Segment::Literal(second)] => {
            service(first) && second.starts_with(|first: char| first.is_ascii_uppercase())
        }
        [Segment::Literal(first), Segment::Parameter(_) | Segment::Rest(_)] => service(first),
        _ => false,
    }
}

/// The scope of `--upstream` without a file.
pub(crate) fn scope_without_file() -> Scope {
    Scope::Parts(vec![ScopePart::Header(http::header::AUTHORIZATION)])
}
