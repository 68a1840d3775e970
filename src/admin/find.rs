//! Finds a record by what its client sent. Keys and scope values go into the record's id, and nowhere else.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Admin, Call,
    answer::{Answer, Problem},
    records::absent,
    view,
};
use crate::{
    config::{Config, settled::Route},
    rule::{
        RecordId,
        identity::{self, IdKey, ScopeValues, Space},
        key::{self, Key},
        policy::{AuthorityMatch, KeySource, Mode, Policy, Scope, ScopePart},
    },
    store::Store,
};

/// What a client sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    route: String,
    authority: Option<String>,
    key: SentKey,
    #[serde(default)]
    scope: BTreeMap<String, String>,
}

/// One value, or those of a composite's parts in the order of the configuration.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
enum SentKey {
    One(String),
    Parts(Vec<String>),
}

impl TryFrom<Value> for SentKey {
    type Error = &'static str;

    fn try_from(key: Value) -> Result<Self, Self::Error> {
        const SAY: &str = "`key` is a text, \"order-17\", or for a key of several parts a list of texts";
        match key {
            Value::String(key) => Ok(Self::One(key)),
            Value::Array(parts) => {
                let text = |part: Value| part.as_str().map(str::to_owned).ok_or(SAY);
                parts.into_iter().map(text).collect::<Result<_, _>>().map(Self::Parts)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(SAY),
        }
    }
}

impl<S: Store> Admin<S> {
    pub(super) async fn find(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        // What serde says may quote the text, but only to who sent it.
        let sent: Sent = serde_json::from_slice(call.body).map_err(|error| {
            Problem::bad_request(format!("The body is {{\"route\", \"authority\", \"key\", \"scope\"}}: {error}."))
        })?;
        let config = self.process.config();
        let route = sent.route(&config)?;
        let ids = sent.ids(&self.id_key, &config, route)?;
        for id in &ids {
            if let Some(details) = self.details(id).await? {
                return Ok(Answer::record(&view::record(id, &details)));
            }
        }
        Err(sent.not_found(&route.policy).with("id", ids[0].to_string()))
    }
}

impl Sent {
    /// The ids that the record may have, the likelier first: those of observed requests are others. At least one.
    fn ids(&self, id_key: &IdKey, config: &Config, route: &Route) -> Result<Vec<RecordId>, Problem> {
        let policy = &route.policy;
        let authority = self.authority(policy, config.server.tls.is_some())?;
        let scope = self.scope(policy)?;
        let spaces = match policy.mode {
            Mode::Enforce | Mode::Off => [Space::Enforce, Space::Observe],
            Mode::Observe => [Space::Observe, Space::Enforce],
        };
        let id = |space, key| identity::record_id(id_key, space, authority.as_deref(), &scope, &route.id, key);
        let keys = self.keys(policy)?;
        Ok(keys.iter().flat_map(|key| spaces.map(|space| id(space, key))).collect())
    }

    fn route<'c>(&self, config: &'c Config) -> Result<&'c Arc<Route>, Problem> {
        let mut routes = config.routes.iter().chain(&config.fallback);
        routes.find(|route| *route.name.0 == *self.route).ok_or_else(|| {
            let names: Vec<&str> = config.routes.iter().chain(&config.fallback).map(|route| &*route.name.0).collect();
            Problem::bad_request("No route has this name.").with("routes", names)
        })
    }

    /// That there is no record says that the request never ran, if it was asked for rightly. What may be wrong with the
    /// question is said too.
    fn not_found(&self, policy: &Policy) -> Problem {
        let mut problem = absent();
        let parts = match &policy.scope {
            Some(Scope::Parts(parts)) => &parts[..],
            Some(Scope::Shared) | None => &[],
        };
        let missing: Vec<String> = parts.iter().map(name).filter(|name| self.part(name).is_none()).collect();
        if !missing.is_empty() {
            problem = problem.and(&format!("Taken as not sent by the client: {}.", missing.join(", ")));
        }
        if policy.mode == Mode::Off {
            problem = problem.and("The route's mode is off: its requests get no records.");
        }
        if policy.key.iter().any(|source| matches!(source, KeySource::Content { .. })) {
            problem = problem.and("A request without a key of its own has its content for one: only its id finds it.");
        }
        problem.with("scope_missing", missing)
    }

    /// The value of a scope part. Names of header fields are read in any case, as they are in requests.
    fn part(&self, name: &str) -> Option<&String> {
        self.scope.iter().find_map(|(given, value)| given.eq_ignore_ascii_case(name).then_some(value))
    }

    fn authority(&self, policy: &Policy, tls: bool) -> Result<Option<Cow<'_, str>>, Problem> {
        match (policy.authority, &self.authority) {
            (AuthorityMatch::Ignore, _) => Ok(None),
            (AuthorityMatch::Match, Some(host)) => Ok(Some(identity::authority(host.trim(), tls))),
            (AuthorityMatch::Match, None) => {
                Err(Problem::bad_request("The host name is part of this route's keys: `authority` is missing."))
            }
        }
    }

    /// A part that the client did not send is left out.
    fn scope<'p>(&'p self, policy: &'p Policy) -> Result<ScopeValues<'p>, Problem> {
        let parts = match &policy.scope {
            Some(Scope::Parts(parts)) => &parts[..],
            Some(Scope::Shared) | None => &[],
        };
        let names: Vec<String> = parts.iter().map(name).collect();
        if self.scope.keys().any(|given| !names.iter().any(|name| name.eq_ignore_ascii_case(given))) {
            return Err(Problem::bad_request("The route's scope has no such part.").with("scope", names));
        }
        match &policy.scope {
            Some(Scope::Shared) => Ok(ScopeValues::Shared),
            Some(Scope::Parts(parts)) => {
                let value = |name: &String| self.part(name).map(|value| Cow::Borrowed(trimmed(value).as_bytes()));
                Ok(ScopeValues::Parts(parts.iter().zip(names.iter().map(value)).collect()))
            }
            None => Err(Problem::bad_request("This route guards nothing: it has no scope, and no records.")),
        }
    }

    /// The keys that may be meant, the likelier first: as it stands in its field, quotes and all, or as it is. Not to
    /// find what was sent would say that it never ran.
    fn keys<'p>(&'p self, policy: &'p Policy) -> Result<Vec<Key<'p>>, Problem> {
        let mut keys = match &self.key {
            SentKey::One(value) => {
                let source = single_source(policy)?;
                let bytes = key::as_written(source, value.as_bytes());
                possible(policy, &[(&bytes, value)])?;
                vec![Key { bytes, ..Key::named(source, &[]) }, Key::named(source, value.as_bytes())]
            }
            SentKey::Parts(values) => {
                let (source, parts) = composite_source(policy, values.len())?;
                let written = parts.iter().zip(values).map(|(part, value)| key::as_written(part, value.as_bytes()));
                let written: Vec<_> = written.collect();
                possible(policy, &written.iter().zip(values).collect::<Vec<_>>())?;
                vec![
                    Key::joined(source, written.iter().map(AsRef::as_ref)),
                    Key::joined(source, values.iter().map(String::as_bytes)),
                ]
            }
        };
        keys.dedup();
        Ok(keys)
    }
}

/// Refuses values that no request can have for a key, neither as they stand in their field nor as they are: that there is
/// no record of them says nothing.
fn possible(policy: &Policy, values: &[(&Cow<'_, [u8]>, &String)]) -> Result<(), Problem> {
    let refused = |(written, value): &(&Cow<'_, [u8]>, &String)| {
        let error = key::possible(policy, value.as_bytes()).err()?;
        key::possible(policy, written).is_err().then_some(error)
    };
    match values.iter().find_map(refused) {
        Some(error) => Err(Problem::bad_request(format!("No request can have this key: {error}."))),
        None => Ok(()),
    }
}

/// Which single source yielded a key is no matter to its id; but only in a header field may it stand in quotes.
fn single_source(policy: &Policy) -> Result<&KeySource, Problem> {
    let single = |source: &&KeySource| match source {
        KeySource::Header(_) | KeySource::Query(_) | KeySource::Json(_) | KeySource::Form(_) => true,
        KeySource::Composite(_) | KeySource::Content { .. } => false,
    };
    let mut singles = policy.key.iter().filter(single);
    let field = singles.clone().find(|source| matches!(source, KeySource::Header(_)));
    let composite = policy.key.iter().any(|source| matches!(source, KeySource::Composite(_)));
    field.or_else(|| singles.next()).ok_or_else(|| {
        Problem::bad_request(match composite {
            true => "This route takes no single key: give a composite's parts as a list, or name the record by its id.",
            false => "This route takes no single key: its requests have their content for one, and only the id finds their records.",
        })
    })
}

/// A composite's key is another than any single one of the same bytes.
fn composite_source(policy: &Policy, values: usize) -> Result<(&KeySource, &[KeySource]), Problem> {
    let composites = policy.key.iter().filter_map(|source| match source {
        KeySource::Composite(parts) => Some((source, &parts[..])),
        KeySource::Header(_)
        | KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Content { .. } => None,
    });
    let mut fitting = composites.filter(|(_, parts)| parts.len() == values);
    fitting.next().ok_or_else(|| Problem::bad_request("This route takes no composite key of so many parts."))
}

/// Optional whitespace around a field's value is not part of it (RFC 9110 s5.5).
fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// A scope part as the configuration writes it.
fn name(part: &ScopePart) -> String {
    match part {
        ScopePart::Header(name) => format!("header:{name}"),
        ScopePart::Cookie(name) => format!("cookie:{name}"),
        ScopePart::Query(name) => format!("query:{name}"),
        ScopePart::TlsSubject => "tls:subject".to_owned(),
    }
}
