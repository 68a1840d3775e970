//! What is found about a request: the proxy's own steps, one after the other, with what each says.

use std::sync::Arc;

use http::{HeaderMap, Method, header};

use crate::{
    config::{Config, settled::Route},
    proxy::{
        headers,
        routes::{Considered, Routes},
    },
    rule::{
        head::Head,
        identity,
        identity::{IdKey, ScopeError, ScopeValues},
        key::{self, Key, KeyError, Search},
        method::{self, Class},
        policy::{FingerprintPart, KeySource, Mode, OnBodyTooLarge, Policy, Scope, ScopePart},
        problem::Problem,
    },
    server::{
        self,
        guard::{Guard, Refused},
    },
};

/// The request that is asked about.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Request {
    fn head(&self, certificates: bool) -> Head<'_> {
        Head {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            // Where clients must show a certificate, each has one: whose it is changes nothing of what is told here.
            tls_subject: certificates.then_some("a client"),
        }
    }

    /// How long its body is: as it says itself, be there a body to look at or not.
    fn body_bytes(&self) -> u64 {
        let declared = self.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.trim().parse().ok());
        declared.unwrap_or(0).max(self.body.len() as u64)
    }

    /// As it would stand on the wire: whether it is ambiguous is asked of what asks it of a client's bytes.
    fn wire(&self) -> Vec<u8> {
        let query = self.query.iter().flat_map(|query| ["?", query]).collect::<String>();
        let mut wire = format!("{} {}{query} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            [name.as_bytes(), b": ", value, b"\r\n"].iter().for_each(|part| wire.extend_from_slice(part));
        };
        if !self.headers.contains_key(header::HOST) {
            line("host", self.host.as_bytes());
        }
        self.headers.iter().for_each(|(name, value)| line(name.as_str(), value.as_bytes()));
        let is_framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        if !self.body.is_empty() && !is_framed.iter().any(|name| self.headers.contains_key(name)) {
            line("content-length", self.body.len().to_string().as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }
}

/// All there is to say of a request.
#[derive(Debug)]
pub(super) struct Finding {
    /// Every route, the fallback last, and why it is or is not the one.
    pub(super) considered: Vec<(Arc<Route>, &'static str)>,
    /// The one.
    pub(super) route: Option<Arc<Route>>,
    /// The name of its upstream, by route.
    pub(super) upstream: Option<String>,
    pub(super) class: Class,
    pub(super) key: Option<KeyFound>,
    pub(super) scope: Vec<(String, bool)>,
    pub(super) fingerprint: Vec<String>,
    pub(super) would: Would,
}

/// Why a request without a key is passed.
pub(super) const NO_KEY: &str = "it has no key, and the route does not require one";
/// Why one is whose key may be where nobody looks (contract: R-4).
pub(super) const BODY_NOT_READ: &str =
    "its body is longer than max_request_body and was not looked at, and the route requires no key";

/// Where the key is and how long.
#[derive(Debug)]
pub(super) struct KeyFound {
    pub(super) source: String,
    pub(super) length: usize,
}

/// What happens to the request.
#[derive(Debug)]
pub(super) enum Would {
    /// Streamed through; why it is not guarded.
    Pass(&'static str),
    /// Streamed through though it has a key, and marked and counted so; why.
    Unguarded(&'static str),
    /// Refused: with which problem, and why.
    Refuse(Problem, &'static str),
    /// Refused before its route matters: it is malformed or ambiguous.
    Malformed(server::Refusal),
    /// Refused: the method is `CONNECT`.
    NotAllowed,
    /// Guarded.
    Guard,
    /// Streamed through, and counted as if it were guarded.
    Observe,
    /// Streamed through where enforcing would refuse it: with which problem, and why.
    ObserveRefusal(Problem, &'static str),
}

impl Would {
    /// What observing makes of it (contract: R-24): nothing is refused, and nothing marked.
    fn observed(self) -> Self {
        match self {
            Self::Guard => Self::Observe,
            Self::Refuse(problem, why) => Self::ObserveRefusal(problem, why),
            Self::Unguarded(why) => Self::Pass(why),
            Self::Pass(_) | Self::Malformed(_) | Self::NotAllowed | Self::Observe | Self::ObserveRefusal(..) => self,
        }
    }

    /// The refusal that the request meets, or would meet under enforcing.
    pub(super) fn problem(&self) -> Option<Problem> {
        match self {
            Self::Refuse(problem, _) | Self::ObserveRefusal(problem, _) => Some(*problem),
            Self::Pass(_)
            | Self::Unguarded(_)
            | Self::Malformed(_)
            | Self::NotAllowed
            | Self::Guard
            | Self::Observe => None,
        }
    }
}

/// Finds out.
pub(super) fn find(config: &Config, request: &Request) -> Finding {
    let considered = Routes::new(config).consider(&request.host, &request.path, &request.method);
    let chosen = considered.iter().find(|(_, considered)| *considered == Considered::Chosen);
    let mut finding = Finding {
        route: chosen.map(|(route, _)| Arc::clone(route)),
        considered: considered
            .iter()
            .map(|(route, considered)| (Arc::clone(route), because(config, route, *considered)))
            .collect(),
        upstream: None,
        class: method::classify(&request.method),
        key: None,
        scope: Vec::new(),
        fingerprint: Vec::new(),
        would: Would::NotAllowed,
    };
    let framing = Guard::new(config.server.max_head).feed(&request.wire()).refused;
    let certificates = config.server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    finding.would = match (finding.route.clone(), framing) {
        _ if request.method == Method::CONNECT => Would::NotAllowed,
        _ if request.method.as_str() == "PRI" => Would::Refuse(Problem::BadRequest, "PRI begins an HTTP/2 connection"),
        (_, Some(Refused::Head(refusal) | Refused::Body(refusal))) => Would::Malformed(refusal),
        (None, None) => Would::Refuse(Problem::NoRoute, "no route matches, and there are several upstreams"),
        (Some(route), None) => {
            finding.upstream = Some(config.upstreams[route.upstream].name.clone());
            let would = match finding.under(&route.policy, request, certificates) {
                Ok(()) => Would::Guard,
                Err(end) => end,
            };
            match route.policy.mode {
                Mode::Observe => would.observed(),
                Mode::Enforce | Mode::Off => would,
            }
        }
    };
    finding
}

fn because(config: &Config, route: &Arc<Route>, considered: Considered) -> &'static str {
    let is_fallback = config.fallback.as_ref().is_some_and(|fallback| Arc::ptr_eq(fallback, route));
    match considered {
        Considered::Chosen => "it is the one",
        Considered::Host => "for other hosts",
        Considered::Path => "for other paths",
        Considered::Method => "for other methods",
        Considered::LessSpecific if is_fallback => "for what no route matches",
        Considered::LessSpecific => "it matches too, but less closely",
    }
}

impl Finding {
    /// Goes through the steps of a guarded request, as if it were enforced; an early end is an `Err`.
    fn under(&mut self, policy: &Policy, request: &Request, certificates: bool) -> Result<(), Would> {
        let head = request.head(certificates);
        if let Some(why) = unguarded(policy, request, self.class) {
            return Err(Would::Pass(why));
        }
        if let Some(shadow) = key::shadowed(policy, &request.headers) {
            return Err(Would::Refuse(Problem::BadRequest, shadow.why()));
        }
        self.scope = scope_parts(policy, &head);
        let too_large = request.body_bytes() > policy.max_request_body;
        let (key, past_body) = find_key(policy, &head, &request.body, too_large)?;
        self.key = Some(KeyFound { source: key::label(key.source).into_owned(), length: length(&key) });
        if past_body {
            return Err(is_too_large(policy));
        }
        if headers::upgrade(http::Version::HTTP_11, &request.headers).is_some() {
            return Err(Would::Refuse(Problem::BadRequest, "a guarded request cannot be upgraded to another protocol"));
        }
        if request.headers.contains_key("early-data") {
            return Err(Would::Refuse(Problem::TooEarly, "TLS early data can be replayed by anyone"));
        }
        match identity::scope(policy, &head) {
            Ok(_) => {}
            Err(ScopeError::Missing) => {
                return Err(Would::Refuse(
                    Problem::ScopeMissing,
                    "it carries a credential, but none that the scope names",
                ));
            }
            Err(ScopeError::Unstable) if policy.key_required => {
                return Err(Would::Refuse(Problem::ScopeUnstable, "the scope's value changes with each request"));
            }
            Err(ScopeError::Unstable) => return Err(Would::Unguarded("the scope's value changes with each request")),
            Err(ScopeError::Malformed(why)) => return Err(Would::Refuse(Problem::BadRequest, why)),
        }
        if too_large {
            return Err(is_too_large(policy));
        }
        self.fingerprint = policy.fingerprint.iter().map(|part| fingerprint_part(part, request)).collect();
        Ok(())
    }
}

/// What becomes of a request with a key and too long a body.
fn is_too_large(policy: &Policy) -> Would {
    match policy.on_body_too_large {
        OnBodyTooLarge::Reject => Would::Refuse(Problem::BodyTooLarge, "it is longer than max_request_body"),
        OnBodyTooLarge::Pass => Would::Unguarded("it is longer than max_request_body"),
    }
}

/// Why a request is passed before anyone looks for a key (contract: R-3).
fn unguarded(policy: &Policy, request: &Request, class: Class) -> Option<&'static str> {
    let grpc = |value: &http::HeaderValue| {
        value.as_bytes().get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
    };
    if policy.mode == Mode::Off {
        return Some("mode = \"off\"");
    }
    if !method::guards(policy, &request.method) {
        return Some(match class {
            Class::Safe => "the method is safe",
            Class::Idempotent => "the method is idempotent",
            Class::NonIdempotent => "the route's `guard` does not list the method",
        });
    }
    request.headers.get(header::CONTENT_TYPE).is_some_and(grpc).then_some("it is gRPC")
}

/// The key, and whether the body was passed over that another may be in.
fn find_key<'a>(
    policy: &'a Policy,
    head: &Head<'a>,
    body: &'a [u8],
    too_large: bool,
) -> Result<(Key<'a>, bool), Would> {
    let malformed = |KeyError::Malformed(why)| Would::Refuse(Problem::KeyMalformed, why);
    let missing = || match policy.key_required {
        true => Would::Refuse(Problem::KeyMissing, "it has no key, and the route requires one"),
        false => Would::Pass(NO_KEY),
    };
    match key::search(policy, head).map_err(malformed)? {
        Search::Found(key) => Ok((key, false)),
        Search::Absent => Err(missing()),
        Search::NeedsBody if too_large => {
            let found = key::search_past_body(policy, head).map_err(malformed)?;
            found.map(|key| (key, true)).ok_or(match policy.key_required {
                true => {
                    Would::Refuse(Problem::BodyTooLarge, "it is longer than max_request_body, and was not looked at")
                }
                false => Would::Pass(BODY_NOT_READ),
            })
        }
        // Nothing is compared with what a store holds: any id key will do.
        Search::NeedsBody => {
            let found = key::search_body(policy, head, body, &IdKey::fixed()).map_err(malformed)?;
            found.map(|key| (key, false)).ok_or_else(missing)
        }
    }
}

/// Bytes of the key itself: a composite carries the length of each part, in eight bytes, before it.
fn length(key: &Key<'_>) -> usize {
    match key.source {
        KeySource::Composite(parts) => key.bytes.len().saturating_sub(8 * parts.len()),
        KeySource::Header(_)
        | KeySource::Query(_)
        | KeySource::Json(_)
        | KeySource::Form(_)
        | KeySource::Content { .. } => key.bytes.len(),
    }
}

fn scope_parts(policy: &Policy, head: &Head<'_>) -> Vec<(String, bool)> {
    let name = |part: &ScopePart| match part {
        ScopePart::Header(name) => format!("header:{name}"),
        ScopePart::Cookie(name) => format!("cookie:{name}"),
        ScopePart::Query(name) => format!("query:{name}"),
        ScopePart::TlsSubject => "tls:subject".to_owned(),
    };
    // Each part by itself: the whole is refused as soon as one of them cannot be used.
    let present = |part: &ScopePart| {
        let alone = Policy { scope: Some(Scope::Parts(vec![part.clone()])), ..policy.clone() };
        match identity::scope(&alone, head) {
            Ok(ScopeValues::Parts(values)) => values.iter().any(|(_, value)| value.is_some()),
            Ok(ScopeValues::Shared) | Err(ScopeError::Unstable | ScopeError::Malformed(_)) => true,
            Err(ScopeError::Missing) => false,
        }
    };
    match &policy.scope {
        None => Vec::new(),
        Some(Scope::Shared) => vec![("shared".to_owned(), true)],
        Some(Scope::Parts(parts)) => parts.iter().map(|part| (name(part), present(part))).collect(),
    }
}

fn fingerprint_part(part: &FingerprintPart, request: &Request) -> String {
    let presence = |present: bool| if present { "" } else { " (absent)" };
    match part {
        FingerprintPart::Method => "method".to_owned(),
        FingerprintPart::Path => "path".to_owned(),
        FingerprintPart::Query => format!("query{}", presence(request.query.is_some())),
        FingerprintPart::ContentType => {
            format!("content-type{}", presence(request.headers.contains_key(header::CONTENT_TYPE)))
        }
        FingerprintPart::Body => format!("body ({})", bytes(request.body.len())),
        FingerprintPart::JsonBody => format!("json-body ({})", bytes(request.body.len())),
        FingerprintPart::Header(name) => format!("header:{name}{}", presence(request.headers.contains_key(name))),
    }
}

/// So many bytes, in words.
pub(super) fn bytes(count: usize) -> String {
    format!("{count} {}", if count == 1 { "byte" } else { "bytes" })
}
