//! Fields that an upstream may take for one that was read here (contract: R-4, last point).
//!
//! CGI and its heirs turn `-` into `_` in field names, so `Idempotency_Key` and `Idempotency-Key` are one there and two
//! here; and a field named in `Connection` is gone before the upstream sees it. Either way Oncegate and the upstream
//! would read two different requests.

use http::{HeaderMap, HeaderName, header};

use crate::rule::policy::{FingerprintPart, KeySource, Policy, Scope, ScopePart};

/// How a field stands in another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shadow {
    /// Its name differs by underscores alone from a field that is read.
    Underscore,
    /// `Connection` names a field that is read.
    Connection,
}

impl Shadow {
    /// What is wrong, without quoting the request.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Underscore => "a field's name differs by underscores alone from one that is read",
            Self::Connection => "Connection names a field that is read",
        }
    }
}

/// Whether a field of the request shadows one that key, scope, fingerprint or framing reads.
#[must_use]
pub fn shadowed(policy: &Policy, headers: &HeaderMap) -> Option<Shadow> {
    let reads = |like: &dyn Fn(&[u8]) -> bool| {
        FRAMING
            .iter()
            .chain(CONNECTION_ONLY.iter())
            .chain(read_fields(policy))
            .any(|name| like(name.as_str().as_bytes()))
    };
    let underscored = |name: &HeaderName| {
        let name = name.as_str().as_bytes();
        reads(&|read| name != read && alike(name, read))
    };
    // Mostly there is no underscore on either side, and nothing to compare.
    let has_underscore = |name: &HeaderName| name.as_str().contains('_');
    if (headers.keys().any(has_underscore) || read_fields(policy).any(has_underscore))
        && headers.keys().any(underscored)
    {
        return Some(Shadow::Underscore);
    }
    let options =
        headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let named = |option: &[u8]| {
        FRAMING.iter().chain(read_fields(policy)).any(|name| alike(option.trim_ascii(), name.as_str().as_bytes()))
    };
    options.into_iter().any(named).then_some(Shadow::Connection)
}

/// What says how long a message is, what is in it and for whom.
const FRAMING: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST, header::TRANSFER_ENCODING];

/// What is read of a connection, and what `Connection` may name without ado (RFC 9110 s7.8, s10.1.4).
const CONNECTION_ONLY: [HeaderName; 6] = [
    header::CONNECTION,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("early-data"),
];

/// The fields that the policy reads.
fn read_fields(policy: &Policy) -> impl Iterator<Item = &HeaderName> {
    let keys = policy.key.iter().flat_map(|source| match source {
        KeySource::Composite(parts) => parts.as_slice(),
        KeySource::Header(_)
        | KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Content { .. } => std::slice::from_ref(source),
    });
    let keys = keys.filter_map(|source| match source {
        KeySource::Header(name) => Some(name),
        KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Composite(_)
        | KeySource::Content { .. } => None,
    });
    let scope = match &policy.scope {
        Some(Scope::Parts(parts)) => parts.as_slice(),
        Some(Scope::Shared) | None => &[],
    };
    let scope = scope.iter().filter_map(|part| match part {
        ScopePart::Header(name) => Some(name),
        ScopePart::Cookie(_) => Some(&header::COOKIE),
        ScopePart::Query(_) | ScopePart::TlsSubject => None,
    });
    let fingerprint = policy.fingerprint.iter().filter_map(|part| match part {
        FingerprintPart::Header(name) => Some(name),
        FingerprintPart::Method
        | FingerprintPart::Path
        | FingerprintPart::Query
        | FingerprintPart::ContentType
        | FingerprintPart::Body
        | FingerprintPart::JsonBody => None,
    });
    keys.chain(scope).chain(fingerprint)
}

/// Whether two names are one with `_` read as `-`, in any case.
fn alike(name: &[u8], read: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == read.len() && name.iter().map(plain).eq(read.iter().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            key: vec![
                KeySource::Header(HeaderName::from_static("idempotency-key")),
                KeySource::Composite(vec![KeySource::Header(HeaderName::from_static("ce-id"))]),
            ],
            scope: Some(Scope::Parts(vec![
                ScopePart::Header(HeaderName::from_static("authorization")),
                ScopePart::Cookie("sid".into()),
                ScopePart::Header(HeaderName::from_static("x_tenant")),
            ])),
            fingerprint: vec![FingerprintPart::Header(HeaderName::from_static("x-api-version"))],
            ..Policy::default()
        }
    }

    fn found(fields: &[(&'static str, &'static str)]) -> Option<Shadow> {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), http::HeaderValue::from_static(value)));
        shadowed(&policy(), &fields.collect())
    }

    // contract: R-4
    #[test]
    fn a_name_that_differs_by_underscores_shadows_what_is_read() {
        for name in [
            "Idempotency_Key",
            "CE_ID",
            "x_api-version",
            "Content_Length",
            "transfer_encoding",
            "x-tenant",
            "content_type",
        ] {
            assert_eq!(found(&[(name, "1")]), Some(Shadow::Underscore), "{name}");
        }
    }

    // contract: R-4
    #[test]
    fn connection_must_not_name_what_is_read() {
        for value in
            ["Idempotency-Key", "close, authorization", "x_api_version", "keep-alive ,\tCookie", "content-length"]
        {
            assert_eq!(found(&[("connection", value)]), Some(Shadow::Connection), "{value}");
        }
    }

    // contract: R-4
    #[test]
    fn ordinary_fields_shadow_nothing() {
        let ordinary = [
            ("idempotency-key", "k"),
            ("authorization", "a"),
            ("cookie", "sid=1"),
            ("x_tenant", "t"),
            ("x_request_id", "1"),
            ("content-length", "0"),
            ("host", "h"),
            ("connection", "keep-alive, TE, Upgrade"),
        ];
        assert_eq!(found(&ordinary), None);
    }
}
