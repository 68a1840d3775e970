//! Reads the policy keys of `[defaults]` and of a route, one laid over the other, and checks how they relate.

use std::{collections::BTreeMap, time::Duration};

use crate::rule::{
    Policy,
    policy::{FingerprintPart, Guard, KeySource, Mode, OnUnknown, Scope, ScopePart, StatusMatch},
};

use super::{
    section::{Section, Span, Spot},
    settled::{RedisServers, Store, StoreKind},
    value,
};

/// A policy as far as it has been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    policy: Policy,
    /// `wait_timeout` is `response_timeout` where it is not given.
    wait_timeout: Option<Duration>,
    /// Where each key that was given stands.
    spans: BTreeMap<&'static str, Span>,
    /// A key that was given and could not be read: what follows from its absence is not said.
    broken: Vec<&'static str>,
}

impl Layer {
    /// What was read, unchecked.
    pub(crate) fn into_policy(self) -> Policy {
        self.policy
    }

    /// With a scope that nobody wrote.
    pub(crate) fn with_scope(mut self, scope: Scope) -> Self {
        self.policy.scope = Some(scope);
        self
    }

    /// Passes everything.
    pub(crate) fn off(mut self) -> Self {
        self.policy.mode = Mode::Off;
        self
    }

    /// What has been read.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a scope is given, be it one that could not be read.
    pub(crate) fn has_scope(&self) -> bool {
        self.policy.scope.is_some() || self.broken.contains(&"scope")
    }

    /// The settled policy.
    pub(crate) fn settle(self) -> Policy {
        let wait_timeout = self.wait_timeout.unwrap_or(self.policy.response_timeout);
        Policy { wait_timeout, ..self.policy }
    }

    /// Lays the keys of a table over what has been read so far.
    pub(crate) fn read(&self, section: &Section<'_, '_>) -> Self {
        let mut layer = self.clone();
        let Self { policy, wait_timeout, spans, broken } = &mut layer;
        let mut wait = None;
        macro_rules! set {
            ($field:expr, $key:literal, $read:expr) => {
                if section.get($key).is_some() {
                    match $read {
                        Some(Spot { value, span }) => {
                            spans.insert($key, span);
                            broken.retain(|key| *key != $key);
                            $field = value;
                        }
                        None => broken.push($key),
                    }
                }
            };
        }
        macro_rules! list {
            ($field:expr, $key:literal, $parse:expr) => {
                set!($field, $key, section.list($key, $parse).map(unspotted));
            };
        }
        set!(policy.mode, "mode", section.choice("mode"));
        set!(policy.guard, "guard", guard(section));
        set!(policy.key, "key", key(section));
        set!(policy.key_required, "key_required", section.boolean("key_required"));
        set!(policy.key_format, "key_format", section.choice("key_format"));
        set!(policy.scope, "scope", scope(section));
        set!(policy.authority, "authority", section.choice("authority"));
        set!(policy.fingerprint, "fingerprint", fingerprint(section));
        set!(policy.on_in_flight, "on_in_flight", section.choice("on_in_flight"));
        set!(wait, "wait_timeout", section.read("wait_timeout", value::duration).map(some));
        set!(policy.max_waiters, "max_waiters", section.integer("max_waiters").map(narrow));
        set!(policy.on_duplicate, "on_duplicate", section.choice("on_duplicate"));
        set!(policy.on_unknown, "on_unknown", section.choice("on_unknown"));
        set!(policy.on_store_down, "on_store_down", section.choice("on_store_down"));
        set!(policy.on_body_too_large, "on_body_too_large", section.choice("on_body_too_large"));
        set!(policy.release_on, "release_on", release_on(section));
        set!(policy.unknown_on, "unknown_on", section.statuses("unknown_on", value::status).map(collected));
        set!(policy.retention, "retention", section.read("retention", value::timeout));
        set!(policy.unknown_retention, "unknown_retention", section.read("unknown_retention", value::timeout));
        set!(policy.response_timeout, "response_timeout", section.read("response_timeout", value::timeout));
        set!(policy.outcome_timeout, "outcome_timeout", section.read("outcome_timeout", value::timeout));
        set!(policy.pass_timeout, "pass_timeout", section.read("pass_timeout", value::timeout_or_off));
        set!(policy.max_request_body, "max_request_body", section.read("max_request_body", value::size));
        set!(policy.max_response_body, "max_response_body", section.read("max_response_body", value::size));
        list!(policy.stream_types, "stream_types", value::media_type);
        list!(policy.drop_headers, "drop_headers", value::header_name);
        set!(policy.error_format, "error_format", section.choice("error_format"));
        set!(policy.docs_url, "docs_url", section.read("docs_url", value::docs_url).map(some));
        if wait.is_some() {
            *wait_timeout = wait;
        }
        layer
    }

    /// Where a key stands; `None` where none of `keys` was given.
    fn span_of(&self, keys: &[&'static str]) -> Option<Span> {
        keys.iter().find_map(|key| self.spans.get(key).cloned())
    }

    /// Checks how the keys relate. `header` is where to point when none of the keys in question was given.
    pub(crate) fn relate(
        &self,
        section: &Section<'_, '_>,
        header: &Span,
        store: Option<&Store>,
        client_certificates: bool,
    ) {
        let policy = &self.policy;
        if policy.mode == Mode::Off {
            return;
        }
        let reader = section.reader;
        let place = |keys: &[&'static str]| self.span_of(keys).unwrap_or_else(|| header.clone());
        let shown = value::show_duration;
        let outcome = policy.outcome_timeout;
        if policy.retention <= outcome {
            reader.error(
                &place(&["retention", "outcome_timeout"]),
                format!("`retention` ({}) is not longer than `outcome_timeout` ({})", shown(policy.retention), shown(outcome)),
                "",
                "a retry may come as late as its first request's answer: an answer that is forgotten by then would be executed again",
            );
        }
        if policy.unknown_retention <= outcome {
            let kept = shown(policy.unknown_retention);
            reader.error(
                &place(&["unknown_retention", "outcome_timeout"]),
                format!("`unknown_retention` ({kept}) is not longer than `outcome_timeout` ({})", shown(outcome)),
                "",
                "the upstream may still be at work for that long: a record forgotten meanwhile would let it run twice",
            );
        }
        if policy.response_timeout > outcome {
            let patience = shown(policy.response_timeout);
            reader.error(
                &place(&["response_timeout", "outcome_timeout"]),
                format!("`response_timeout` ({patience}) is longer than `outcome_timeout` ({})", shown(outcome)),
                "",
                "a client cannot wait longer for the answer than Oncegate itself does: raise outcome_timeout",
            );
        }
        let by_content = policy.key.iter().any(|source| matches!(source, KeySource::Content { .. }));
        let body =
            policy.fingerprint.iter().any(|part| matches!(part, FingerprintPart::Body | FingerprintPart::JsonBody));
        if by_content && !body {
            reader.error(
                &place(&["fingerprint", "key"]),
                "`content:` in `key`, but no body in `fingerprint`",
                "",
                "requests that differ in their bodies would be taken for one: add \"body\" or \"json-body\"",
            );
        }
        if by_content && guards_something(&policy.guard) {
            reader.warn(
                &place(&["key"]),
                "two intended, identical requests within the window become one",
                "only for clients that send no key and never mean the same request twice that soon",
            );
        }
        let by_certificate =
            matches!(&policy.scope, Some(Scope::Parts(parts)) if parts.contains(&ScopePart::TlsSubject));
        if by_certificate && !client_certificates {
            reader.error(
                &place(&["scope"]),
                "`tls:subject` in `scope`, but clients show no certificates",
                "",
                "ask for them: [server] tls = { cert = …, key = …, client_ca = \"ca.crt\" }",
            );
        }
        let several_nodes = store.is_some_and(|store| match &store.kind {
            StoreKind::Memory { .. } => false,
            StoreKind::Redis(redis) => match redis.servers {
                RedisServers::Single(_) => false,
                RedisServers::Cluster(_) | RedisServers::Sentinel { .. } => store.lease < Duration::from_secs(60),
            },
        });
        if policy.on_unknown == OnUnknown::Retry && several_nodes {
            reader.error(
                &place(&["on_unknown"]),
                "`on_unknown = \"retry\"` on several Redis nodes, and `lease` below 60s",
                "",
                "a failover moves the records to a node with another clock, where a live owner's lease may read as lapsed: set [store] lease = \"60s\"",
            );
        }
    }
}

fn some<T>(spot: Spot<T>) -> Spot<Option<T>> {
    Spot { value: Some(spot.value), span: spot.span }
}

fn narrow(spot: Spot<u64>) -> Spot<u32> {
    Spot { value: u32::try_from(spot.value).unwrap_or(u32::MAX), span: spot.span }
}

fn unspotted<T>(spot: Spot<Vec<Spot<T>>>) -> Spot<Vec<T>> {
    Spot { value: spot.value.into_iter().map(|item| item.value).collect(), span: spot.span }
}

fn collected<T, C: FromIterator<T>>(spot: Spot<Vec<Spot<T>>>) -> Spot<C> {
    Spot { value: spot.value.into_iter().map(|item| item.value).collect(), span: spot.span }
}

/// Warns of what a list holds for the second time: likely it was to be something else.
fn warn_twice<T: PartialEq>(section: &Section<'_, '_>, list: &[Spot<T>], message: &str, help: &str) {
    for (at, spot) in list.iter().enumerate() {
        if list[..at].iter().any(|earlier| earlier.value == spot.value) {
            section.reader.warn(&spot.span, message, help);
        }
    }
}

/// Whether any method at all is guarded.
pub(crate) fn guards_something(guard: &Guard) -> bool {
    match guard {
        Guard::NonIdempotent => true,
        Guard::Methods(methods) => !methods.is_empty(),
    }
}

fn guard(section: &Section<'_, '_>) -> Option<Spot<Guard>> {
    if section.is_text("guard") {
        return section.read("guard", |text| match text {
            "non-idempotent" => Ok(Guard::NonIdempotent),
            _ => {
                value::wrong("not a word it knows", "say \"non-idempotent\", or a list of methods: [\"POST\", \"PUT\"]")
            }
        });
    }
    let Spot { value, span } = unspotted(section.list("guard", value::method)?);
    Some(Spot { value: Guard::Methods(value), span })
}

fn key(section: &Section<'_, '_>) -> Option<Spot<Vec<KeySource>>> {
    let Spot { value: sources, span } = section.elements("key", value::key_source)?;
    if sources.is_empty() {
        section.reader.error(&span, "`key` is empty", "", "say where keys are: key = [\"header:Idempotency-Key\"]");
        return None;
    }
    let contents = sources.iter().rev().skip(1).flatten();
    let contents = contents.filter(|spot| matches!(spot.value, KeySource::Content { .. }));
    let mut misplaced = false;
    for content in contents {
        misplaced = true;
        section.reader.error(
            &content.span,
            "a content source that is not the last",
            "",
            "every request has a content, so nothing behind it would be tried: put it last",
        );
    }
    let value = sources.into_iter().collect::<Option<Vec<_>>>()?;
    warn_twice(section, &value, "a key source that stands twice", "it is looked at once: leave one of them out");
    (!misplaced).then(|| unspotted(Spot { value, span }))
}

fn scope(section: &Section<'_, '_>) -> Option<Spot<Option<Scope>>> {
    if section.is_text("scope") {
        return section.read("scope", |text| match text {
            "shared" => Ok(Some(Scope::Shared)),
            _ => value::wrong(
                "not a word it knows",
                "say whose keys these are in a list, scope = [\"header:authorization\"], or \"shared\" when all callers are one",
            ),
        });
    }
    let parts = section.list("scope", value::scope_part)?;
    if parts.value.is_empty() {
        section.reader.error(&parts.span, "`scope` is empty", "", SCOPE_HELP);
        return None;
    }
    let help =
        "it tells callers apart once: leave one of them out, before there are records (it is part of their identity)";
    warn_twice(section, &parts.value, "a part of the scope that stands twice", help);
    let Spot { value, span } = unspotted(parts);
    Some(Spot { value: Some(Scope::Parts(value)), span })
}

/// The remedy for a scope that is not given.
pub(crate) const SCOPE_HELP: &str =
    "say whose keys these are: scope = [\"header:authorization\"], or \"shared\" when all callers are one";

fn fingerprint(section: &Section<'_, '_>) -> Option<Spot<Vec<FingerprintPart>>> {
    let Spot { value, span } = unspotted(section.list("fingerprint", value::fingerprint_part)?);
    if value.is_empty() {
        let help =
            "say what must be equal: fingerprint = [\"method\", \"path\", \"query\", \"content-type\", \"body\"]";
        section.reader.error(&span, "`fingerprint` is empty", "every request would be a retry of every other", help);
        return None;
    }
    Some(Spot { value, span })
}

fn release_on<C: FromIterator<StatusMatch>>(section: &Section<'_, '_>) -> Option<Spot<C>> {
    let statuses = section.statuses("release_on", value::status)?;
    let mut successes = statuses.value.iter().filter(|spot| spot.value.status < 300).peekable();
    let sound = successes.peek().is_none();
    for success in successes {
        section.reader.error(
            &success.span,
            "a success in `release_on`",
            "",
            "release_on says that nothing was executed: with a success in it, a retry would run the request again",
        );
    }
    sound.then(|| collected(statuses))
}
