//! Finds a record by what its client sent. Keys and scope values go into the record's id, and nowhere else.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde::Deserialize;

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
        key::Key,
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
#[serde(untagged)]
enum SentKey {
    One(String),
    Parts(Vec<String>),
}

impl<S: Store> Admin<S> {
    pub(super) async fn find(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        // What serde says may quote the text, but only to who sent it.
        let sent: Sent = serde_json::from_slice(call.body).map_err(|error| {
            Problem::bad_request(format!("The body is {{\"route\", \"authority\", \"key\", \"scope\"}}: {error}."))
        })?;
        let ids = sent.ids(&self.id_key, &self.process.config())?;
        for id in ids {
            if let Some(details) = self.details(&id).await? {
                return Ok(Answer::record(&view::record(&id, &details)));
            }
        }
        Err(absent().with("id", ids[0].to_string()))
    }
}

impl Sent {
    /// The ids that the record may have, the likelier first: those of observed requests are others.
    fn ids(&self, id_key: &IdKey, config: &Config) -> Result<[RecordId; 2], Problem> {
        let route = self.route(config)?;
        let policy = &route.policy;
        let authority = self.authority(policy, config.server.tls.is_some())?;
        let scope = self.scope(policy)?;
        let key = self.key(policy)?;
        let id = |space| identity::record_id(id_key, space, authority.as_deref(), &scope, &route.id, &key);
        let (enforced, observed) = (id(Space::Enforce), id(Space::Observe));
        Ok(match policy.mode {
            Mode::Enforce | Mode::Off => [enforced, observed],
            Mode::Observe => [observed, enforced],
        })
    }

    fn route<'c>(&self, config: &'c Config) -> Result<&'c Arc<Route>, Problem> {
        let mut routes = config.routes.iter().chain(&config.fallback);
        routes.find(|route| *route.name.0 == *self.route).ok_or_else(|| {
            let names: Vec<&str> = config.routes.iter().chain(&config.fallback).map(|route| &*route.name.0).collect();
            Problem::bad_request("No route has this name.").with("routes", names)
        })
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
        // Names of header fields are read in any case, as they are in requests.
        let given = |name: &str| self.scope.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        if self.scope.keys().any(|given| !names.iter().any(|name| name.eq_ignore_ascii_case(given))) {
            return Err(Problem::bad_request("The route's scope has no such part.").with("scope", names));
        }
        match &policy.scope {
            Some(Scope::Shared) => Ok(ScopeValues::Shared),
            Some(Scope::Parts(parts)) => {
                let value = |name: &String| given(name).map(|(_, value)| Cow::Borrowed(trimmed(value).as_bytes()));
                Ok(ScopeValues::Parts(parts.iter().zip(names.iter().map(value)).collect()))
            }
            None => Err(Problem::bad_request("This route guards nothing: it has no scope, and no records.")),
        }
    }

    /// Which single source yielded a key is no matter; a composite's is another key than any single one.
    fn key<'p>(&'p self, policy: &'p Policy) -> Result<Key<'p>, Problem> {
        match &self.key {
            SentKey::One(value) => {
                let source = policy.key.iter().find(|source| match source {
                    KeySource::Header(_) | KeySource::Query(_) | KeySource::Json(_) | KeySource::Form(_) => true,
                    KeySource::Composite(_) | KeySource::Content { .. } => false,
                });
                let source = source.ok_or_else(|| {
                    Problem::bad_request(
                        "This route takes no single key: give a composite's parts as a list, or name the record by its id.",
                    )
                })?;
                Ok(Key::named(source, value.as_bytes()))
            }
            SentKey::Parts(values) => {
                let source = policy
                    .key
                    .iter()
                    .find(|source| matches!(source, KeySource::Composite(parts) if parts.len() == values.len()));
                let source = source
                    .ok_or_else(|| Problem::bad_request("This route takes no composite key of so many parts."))?;
                Ok(Key::joined(source, values.iter().map(String::as_bytes)))
            }
        }
    }
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
