//! The record's identity: whose key, for which host and route (contract: R-5).
//!
//! Raw keys and scope values go into a keyed hash here and nowhere else.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

use super::{
    digest::Digest,
    head::Head,
    key::{self, Key, Once},
    policy::{KeySource, Policy, Scope, ScopePart},
    record::RecordId,
};

/// Keys the ids and fingerprints, so that who holds a dump of the store cannot search it for a guessed key or body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdKey(pub [u8; 32]);

impl IdKey {
    /// The key of a shared store without `secret_file`: the same for all replicas, and public.
    #[must_use]
    pub fn fixed() -> Self {
        Self::from_secret(b"public")
    }

    /// The key that a secret gives, the secret being of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(blake3::derive_key("oncegate 2026-11-23 record ids and fingerprints v1", secret))
    }
}

impl std::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdKey(..)")
    }
}

/// Which ids never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Of `mode = "enforce"`.
    Enforce,
    /// Of `mode = "observe"`, which enforcing never reads (contract: R-24).
    Observe,
}

/// Whose key it is. Values may be secrets: never stored, logged or put in a metric.
#[derive(Clone, PartialEq, Eq)]
pub enum ScopeValues<'a> {
    /// All callers are one.
    Shared,
    /// The value of each part, in the policy's order; `None` where the request has none.
    Parts(Vec<(&'a ScopePart, Option<Cow<'a, [u8]>>)>),
}

/// Why it cannot be said whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The request carries a credential, but no part of the scope.
    #[error("the request carries a credential, but none of the scope's parts")]
    Missing,
    /// The scope's value changes with each request.
    #[error("the scope's value changes with each request")]
    Unstable,
    /// A part of the scope is there twice, or cannot be read.
    #[error("{0}")]
    Malformed(
        /// What is wrong with it, without quoting it.
        &'static str,
    ),
}

/// Reads whose request this is.
///
/// # Errors
///
/// See [`ScopeError`]; [`ScopeError::Missing`] also where the policy names no scope, which guards nothing.
pub fn scope<'a>(policy: &'a Policy, head: &Head<'a>) -> Result<ScopeValues<'a>, ScopeError> {
    let parts = match &policy.scope {
        None => return Err(ScopeError::Missing),
        Some(Scope::Shared) => return Ok(ScopeValues::Shared),
        Some(Scope::Parts(parts)) => parts,
    };
    let mut values = Vec::with_capacity(parts.len());
    let mut told_apart = false;
    for part in parts {
        let value = match value(part, head) {
            Once::Never => None,
            Once::Found(value) => Some(value),
            Once::Twice => return Err(ScopeError::Malformed("a part of the scope comes twice")),
        };
        if value.as_ref().is_some_and(|value| changes_each_time(part, value)) {
            return Err(ScopeError::Unstable);
        }
        told_apart |= value.as_ref().is_some_and(|value| !value.is_empty());
        values.push((part, value));
    }
    // An empty value tells nobody apart: a caller known by another credential would share its records with all others.
    if !told_apart && carries_credential(head) { Err(ScopeError::Missing) } else { Ok(ScopeValues::Parts(values)) }
}

/// Whether the request says whose it is: a part of the scope is there, or all callers are one.
pub(super) fn has_scope(policy: &Policy, head: &Head<'_>) -> bool {
    match &policy.scope {
        None => false,
        Some(Scope::Shared) => true,
        Some(Scope::Parts(parts)) => parts.iter().any(|part| match value(part, head) {
            Once::Never => false,
            Once::Found(value) => !value.is_empty(),
            // To be refused when the scope itself is read.
            Once::Twice => true,
        }),
    }
}

/// The id of a request's record. `authority` is `None` where the policy leaves it out.
#[must_use]
pub fn record_id(
    id_key: &IdKey,
    space: Space,
    authority: Option<&str>,
    scope: &ScopeValues<'_>,
    route_id: &str,
    key: &Key<'_>,
) -> RecordId {
    let mut digest = Digest::new(id_key, "record id");
    digest.tag(match space {
        Space::Enforce => b'e',
        Space::Observe => b'o',
    });
    digest.optional(authority.map(str::as_bytes));
    match scope {
        ScopeValues::Shared => digest.tag(b's'),
        ScopeValues::Parts(parts) => {
            digest.tag(b'p');
            digest.count(parts.len());
            for (part, value) in parts {
                let (tag, name) = part_name(part);
                digest.tag(tag);
                digest.part(name);
                digest.optional(value.as_deref());
            }
        }
    }
    digest.part(route_id.as_bytes());
    // A composite is not the single key of the same bytes, nor is a fingerprint.
    digest.tag(match key.source {
        KeySource::Header(_) | KeySource::Query(_) | KeySource::Json(_) | KeySource::Form(_) => b'k',
        KeySource::Composite(_) => b'+',
        KeySource::Content { .. } => b'c',
    });
    digest.part(&key.bytes);
    RecordId(digest.finish())
}

/// A host as it goes into the identity: lower case, without a trailing dot and without the scheme's default port.
#[must_use]
pub fn authority(host: &str, tls: bool) -> Cow<'_, str> {
    // The colons of an IPv6 address are within brackets.
    let address_end = host.rfind(']').map_or(0, |at| at + 1);
    let (name, port) = match host[address_end..].rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (&host[..address_end + name.len()], Some(port))
        }
        Some(_) | None => (host, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let default = if tls { "443" } else { "80" };
    // RFC 3986 s6.2.3: an empty port is the default one.
    let port = port.map(|port| port.trim_start_matches('0')).filter(|port| !port.is_empty() && *port != default);
    match port {
        Some(port) if host.len() == name.len() + 1 + port.len() => lower(host),
        Some(port) => Cow::Owned(format!("{}:{port}", name.to_ascii_lowercase())),
        None => lower(name),
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn value<'a>(part: &'a ScopePart, head: &Head<'a>) -> Once<'a> {
    match part {
        ScopePart::Header(name) => field(head.headers, name),
        ScopePart::Cookie(name) => key::cookie(head.headers, name),
        ScopePart::Query(name) => key::only(head.query.unwrap_or_default().as_bytes(), name),
        ScopePart::TlsSubject => match head.tls_subject {
            None => Once::Never,
            Some(subject) => Once::Found(Cow::Borrowed(subject.as_bytes())),
        },
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Once<'a> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Once::Never,
        (Some(line), None) => Once::Found(Cow::Borrowed(key::trim_ows(line.as_bytes()))),
        (Some(_), Some(_)) => Once::Twice,
    }
}

fn part_name(part: &ScopePart) -> (u8, &[u8]) {
    match part {
        ScopePart::Header(name) => (b'h', name.as_str().as_bytes()),
        ScopePart::Cookie(name) => (b'c', name.as_bytes()),
        ScopePart::Query(name) => (b'q', name.as_bytes()),
        ScopePart::TlsSubject => (b't', b""),
    }
}

/// Fields that say who calls.
const CREDENTIALS: [HeaderName; 6] = [
    header::COOKIE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-auth-token"),
];

fn carries_credential(head: &Head<'_>) -> bool {
    head.tls_subject.is_some()
        || CREDENTIALS.iter().any(|name| head.headers.get_all(name).iter().any(|line| !line.as_bytes().is_empty()))
}

/// Authentication schemes that sign each request anew, or answer a challenge.
const UNSTABLE_SCHEMES: [&[u8]; 7] = [b"OAuth", b"Digest", b"Hawk", b"Signature", b"DPoP", b"Negotiate", b"NTLM"];
const UNSTABLE_PREFIX: &[u8] = b"AWS4-";

/// Whether a scope part's value is one that no retry will send again. Schemes are compared in any case (RFC 9110 s11.1).
fn changes_each_time(part: &ScopePart, value: &[u8]) -> bool {
    let ScopePart::Header(name) = part else { return false };
    if *name == "signature" || *name == "signature-input" || *name == "dpop" {
        return true;
    }
    if *name != header::AUTHORIZATION && *name != header::PROXY_AUTHORIZATION {
        return false;
    }
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let scheme = &value[..end];
    UNSTABLE_SCHEMES.iter().any(|unstable| scheme.eq_ignore_ascii_case(unstable))
        || scheme.get(..UNSTABLE_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(UNSTABLE_PREFIX))
}

#[cfg(test)]
mod tests;
