//! The settled configuration as JSON, in the words of the file, with secrets hidden: for the admin interface.

use serde_json::{Map, Value, json};

use crate::rule::{
    Policy,
    policy::{FingerprintPart, Guard, KeySource, Scope, ScopePart, StatusSet},
};

use super::{
    settled::{
        Admin, Config, HostPattern, Log, Redis, RedisServers, Route, Server, Store, StoreKind, Upstream,
        UpstreamTarget, UpstreamTls, UpstreamUrl,
    },
    value::{show_duration, show_size},
    words::Words,
};

/// The whole configuration. User information in URLs is hidden; of secrets only their files' names are known here.
#[must_use]
pub fn show(config: &Config) -> Value {
    let Config { server, admin, log, store, upstreams, routes, fallback, defaults } = config;
    let upstreams: Map<String, Value> =
        upstreams.iter().map(|upstream| (upstream.name.clone(), show_upstream(upstream))).collect();
    json!({
        "server": show_server(server),
        "admin": show_admin(admin),
        "log": show_log(log),
        "store": show_store(store),
        "upstreams": upstreams,
        "defaults": show_policy(defaults),
        "routes": routes.iter().map(|route| show_route(config, route)).collect::<Vec<_>>(),
        "fallback": fallback.as_ref().map(|route| show_route(config, route)),
    })
}

fn show_server(server: &Server) -> Value {
    let Server {
        listen,
        max_connections,
        max_connections_per_address,
        max_in_flight,
        max_buffered,
        max_head,
        header_timeout,
        body_timeout,
        idle_timeout,
        max_connection_age,
        drain_timeout,
        accept_identity_change,
        tls,
        trusted_proxies,
        proxy_protocol,
    } = server;
    json!({
        "listen": listen.to_string(),
        "max_connections": max_connections,
        "max_connections_per_address": max_connections_per_address.unwrap_or(0),
        "max_in_flight": max_in_flight,
        "max_buffered": show_size(*max_buffered),
        "max_head": show_size(*max_head as u64),
        "header_timeout": show_duration(*header_timeout),
        "body_timeout": show_duration(*body_timeout),
        "idle_timeout": show_duration(*idle_timeout),
        "max_connection_age": max_connection_age.map_or_else(|| "off".to_owned(), show_duration),
        "drain_timeout": show_duration(*drain_timeout),
        "accept_identity_change": accept_identity_change,
        "tls": tls.as_ref().map(|tls| {
            let certificate = tls.client_ca.as_ref().map(|_| tls.client_certificate.word());
            json!({"cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca, "client_certificate": certificate})
        }),
        "trusted_proxies": trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "proxy_protocol": proxy_protocol,
    })
}

fn show_admin(Admin { listen, token_file }: &Admin) -> Value {
    json!({"listen": listen.to_string(), "token_file": token_file})
}

fn show_log(Log { format, level, access }: &Log) -> Value {
    json!({"format": format.word(), "level": level.word(), "access": access})
}

fn show_store(Store { kind, lease, allow_eviction, secret_file }: &Store) -> Value {
    let (word, key, own) = match kind {
        StoreKind::Memory { max_bytes } => ("memory", "memory", json!({"max_bytes": show_size(*max_bytes)})),
        StoreKind::Redis(redis) => ("redis", "redis", show_redis(redis)),
    };
    let mut shown = json!({
        "kind": word,
        "lease": show_duration(*lease),
        "allow_eviction": allow_eviction,
        "secret_file": secret_file,
    });
    shown[key] = own;
    shown
}

fn show_redis(redis: &Redis) -> Value {
    let Redis { servers, prefix, timeout, settle_backlog, username, password_file, tls_ca, encrypt, replicas } = redis;
    let hidden = |urls: &[String]| urls.iter().map(|url| hide(url)).collect::<Vec<_>>();
    let (key, place) = match servers {
        RedisServers::Single(url) => ("url", Value::from(hide(url))),
        RedisServers::Cluster(nodes) => ("cluster", hidden(nodes).into()),
        RedisServers::Sentinel { master, nodes } => ("sentinel", json!({"master": master, "nodes": hidden(nodes)})),
    };
    let mut shown = json!({
        "prefix": prefix,
        "timeout": show_duration(*timeout),
        "settle_backlog": show_size(*settle_backlog),
        "username": username,
        "password_file": password_file,
        "tls_ca": tls_ca,
        "encrypt": encrypt,
        "replicas": replicas,
    });
    shown[key] = place;
    shown
}

/// A URL without its user information, and without the query, which some clients read a password from.
fn hide(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        (Some(_), None) | (None, _) => url.to_owned(),
    }
}

fn show_upstream(upstream: &Upstream) -> Value {
    let Upstream { name: _, urls, connect_timeout, queue_timeout, max_connections, max_idle_guarded, http2, host, tls } =
        upstream;
    let UpstreamTls { ca, cert, key, server_name } = tls;
    json!({
        "urls": urls.iter().map(show_url).collect::<Vec<_>>(),
        "connect_timeout": show_duration(*connect_timeout),
        "queue_timeout": show_duration(*queue_timeout),
        "max_connections": max_connections,
        "max_idle_guarded": show_duration(*max_idle_guarded),
        "http2": http2,
        "host": host.word(),
        "tls": {"ca": ca, "cert": cert, "key": key, "server_name": server_name},
    })
}

fn show_url(url: &UpstreamUrl) -> String {
    match &url.target {
        UpstreamTarget::Unix(path) => format!("unix:{}", path.display()),
        UpstreamTarget::Tcp(..) => format!("{}://{}", if url.tls { "https" } else { "http" }, url.authority),
    }
}

fn show_route(config: &Config, route: &Route) -> Value {
    let Route { name, id, host, path, methods, upstream, policy } = route;
    let mut shown = json!({
        "name": name.to_string(),
        "id": id,
        "host": show_host(host),
        "path": path.text,
        "methods": methods.as_ref().map(|methods| methods.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "upstream": config.upstreams.get(*upstream).map(|upstream| upstream.name.as_str()),
    });
    if let (Value::Object(shown), Value::Object(policy)) = (&mut shown, show_policy(policy)) {
        shown.extend(policy);
    }
    shown
}

pub(crate) fn show_host(host: &HostPattern) -> Option<String> {
    match host {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Suffix(suffix) => Some(format!("*{suffix}")),
        HostPattern::Any => None,
    }
}

fn show_policy(policy: &Policy) -> Value {
    let Policy {
        mode,
        guard,
        key,
        key_required,
        key_format,
        scope,
        authority,
        fingerprint,
        on_in_flight,
        wait_timeout,
        max_waiters,
        on_duplicate,
        on_unknown,
        on_store_down,
        on_body_too_large,
        release_on,
        unknown_on,
        retention,
        unknown_retention,
        response_timeout,
        outcome_timeout,
        pass_timeout,
        max_request_body,
        max_response_body,
        stream_types,
        drop_headers,
        error_format,
        docs_url,
    } = policy;
    json!({
        "mode": mode.word(),
        "guard": match guard {
            Guard::NonIdempotent => Value::from("non-idempotent"),
            Guard::Methods(methods) => methods.iter().map(ToString::to_string).collect(),
        },
        "key": key.iter().map(show_key).collect::<Vec<_>>(),
        "key_required": key_required,
        "key_format": key_format.word(),
        "scope": scope.as_ref().map(|scope| match scope {
            Scope::Shared => Value::from("shared"),
            Scope::Parts(parts) => parts.iter().map(show_scope_part).collect(),
        }),
        "authority": authority.word(),
        "fingerprint": fingerprint.iter().map(show_fingerprint_part).collect::<Vec<_>>(),
        "on_in_flight": on_in_flight.word(),
        "wait_timeout": show_duration(*wait_timeout),
        "max_waiters": max_waiters,
        "on_duplicate": on_duplicate.word(),
        "on_unknown": on_unknown.word(),
        "on_store_down": on_store_down.word(),
        "on_body_too_large": on_body_too_large.word(),
        "release_on": show_statuses(release_on),
        "unknown_on": show_statuses(unknown_on),
        "retention": show_duration(*retention),
        "unknown_retention": show_duration(*unknown_retention),
        "response_timeout": show_duration(*response_timeout),
        "outcome_timeout": show_duration(*outcome_timeout),
        "pass_timeout": pass_timeout.map_or_else(|| "off".to_owned(), show_duration),
        "max_request_body": show_size(*max_request_body),
        "max_response_body": show_size(*max_response_body),
        "stream_types": stream_types,
        "drop_headers": drop_headers.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        "error_format": error_format.word(),
        "docs_url": docs_url,
    })
}

fn show_statuses(statuses: &StatusSet) -> Value {
    let show = |entry: &crate::rule::policy::StatusMatch| match entry.with_retry_after {
        true => Value::from(format!("{}+retry-after", entry.status)),
        false => Value::from(entry.status),
    };
    statuses.entries().iter().map(show).collect()
}

/// A key source, as the file has it.
pub(crate) fn show_key(source: &KeySource) -> String {
    match source {
        KeySource::Header(name) => format!("header:{name}"),
        KeySource::Query(name) => format!("query:{name}"),
        KeySource::Json(pointer) => format!("json:{pointer}"),
        KeySource::Form(name) => format!("form:{name}"),
        KeySource::Composite(parts) => parts.iter().map(show_key).collect::<Vec<_>>().join("+"),
        KeySource::Content { window } => format!("content:{}", show_duration(*window)),
    }
}

/// What is guarded, in a few words.
pub(crate) fn show_guard(guard: &Guard) -> String {
    match guard {
        Guard::NonIdempotent => "non-idempotent".to_owned(),
        Guard::Methods(methods) => methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// Whose keys these are, in a few words.
pub(crate) fn show_scope(scope: Option<&Scope>) -> String {
    match scope {
        None => "-".to_owned(),
        Some(Scope::Shared) => "shared".to_owned(),
        Some(Scope::Parts(parts)) => parts.iter().map(show_scope_part).collect::<Vec<_>>().join(" "),
    }
}

fn show_scope_part(part: &ScopePart) -> String {
    match part {
        ScopePart::Header(name) => format!("header:{name}"),
        ScopePart::Cookie(name) => format!("cookie:{name}"),
        ScopePart::Query(name) => format!("query:{name}"),
        ScopePart::TlsSubject => "tls:subject".to_owned(),
    }
}

fn show_fingerprint_part(part: &FingerprintPart) -> String {
    match part {
        FingerprintPart::Method => "method".to_owned(),
        FingerprintPart::Path => "path".to_owned(),
        FingerprintPart::Query => "query".to_owned(),
        FingerprintPart::ContentType => "content-type".to_owned(),
        FingerprintPart::Body => "body".to_owned(),
        FingerprintPart::JsonBody => "json-body".to_owned(),
        FingerprintPart::Header(name) => format!("header:{name}"),
    }
}
