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
        for id in &ids {
            if let Some(details) = self.details(id).await? {
                return Ok(Answer::record(&view::record(id, &details)));
            }
        }
        Err(absent().with("id", ids[0].to_string()))
    }
}

impl Sent {
    /// The ids that the record may have, the likelier first: those of observed requests are others. At least one.
    fn ids(&self, id_key: &IdKey, config: &Config) -> Result<Vec<RecordId>, Problem> {
        let route = self.route(config)?;
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

    /// The keys that may be meant, the likelier first: as it stands in its field, quotes and all, or as it is. Not to
    /// find what was sent would say that it never ran.
    fn keys<'p>(&'p self, policy: &'p Policy) -> Result<Vec<Key<'p>>, Problem> {
        let mut keys = match &self.key {
            SentKey::One(value) => {
                let source = single_source(policy)?;
                let bytes = key::as_written(source, value.as_bytes());
                vec![Key { bytes, ..Key::named(source, &[]) }, Key::named(source, value.as_bytes())]
            }
            SentKey::Parts(values) => {
                let (source, parts) = composite_source(policy, values.len())?;
                let written = parts.iter().zip(values).map(|(part, value)| key::as_written(part, value.as_bytes()));
                let written: Vec<_> = written.collect();
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

/// Which single source yielded a key is no matter to its id; but only in a header field may it stand in quotes.
fn single_source(policy: &Policy) -> Result<&KeySource, Problem> {
    let single = |source: &&KeySource| match source {
        KeySource::Header(_) | KeySource::Query(_) | KeySource::Json(_) | KeySource::Form(_) => true,
        KeySource::Composite(_) | KeySource::Content { .. } => false,
    };
    let mut singles = policy.key.iter().filter(single);
    let field = singles.clone().find(|source| matches!(source, KeySource::Header(_)));
    field.or_else(|| singles.next()).ok_or_else(|| {
        Problem::bad_request(
            "This route takes no single key: give a composite's parts as a list, or name the record by its id.",
        )
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
