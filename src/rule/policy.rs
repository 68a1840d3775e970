//! The policy of a route: every policy key of the configuration, validated.
//!
//! `config` parses text into these types; nothing here can hold a value that makes no sense on its own. Relations
//! between keys (`retention` longer than `outcome_timeout`, …) are checked where they are settled.

use std::time::Duration;

use http::{HeaderName, Method};

/// How requests of a route are handled. One field for each policy key of the contract's section 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `mode`
    pub mode: Mode,
    /// `guard`
    pub guard: Guard,
    /// `key`, tried in order; a content source is the last.
    pub key: Vec<KeySource>,
    /// `key_required`
    pub key_required: bool,
    /// `key_format`
    pub key_format: KeyFormat,
    /// `scope`; `None` only where nothing is guarded.
    pub scope: Option<Scope>,
    /// `authority`
    pub authority: AuthorityMatch,
    /// `fingerprint`, in order.
    pub fingerprint: Vec<FingerprintPart>,
    /// `on_in_flight`
    pub on_in_flight: OnInFlight,
    /// `wait_timeout`
    pub wait_timeout: Duration,
    /// `max_waiters`, per record.
    pub max_waiters: u32,
    /// `on_duplicate`
    pub on_duplicate: OnDuplicate,
    /// `on_unknown`
    pub on_unknown: OnUnknown,
    /// `on_store_down`
    pub on_store_down: OnStoreDown,
    /// `on_body_too_large`
    pub on_body_too_large: OnBodyTooLarge,
    /// `release_on`
    pub release_on: StatusSet,
    /// `unknown_on`
    pub unknown_on: StatusSet,
    /// `retention`, from settlement.
    pub retention: Duration,
    /// `unknown_retention`
    pub unknown_retention: Duration,
    /// `response_timeout`: how long the client of a guarded request waits.
    pub response_timeout: Duration,
    /// `outcome_timeout`: how long the detached exchange waits.
    pub outcome_timeout: Duration,
    /// `pass_timeout`: to the head of the response of a request that is passed; `None` is "off".
    pub pass_timeout: Option<Duration>,
    /// `max_request_body`, bytes.
    pub max_request_body: u64,
    /// `max_response_body`, bytes.
    pub max_response_body: u64,
    /// `stream_types`: media types in lower case, without parameters.
    pub stream_types: Vec<String>,
    /// `drop_headers`
    pub drop_headers: Vec<HeaderName>,
    /// `error_format`
    pub error_format: ErrorFormat,
    /// `docs_url`
    pub docs_url: Option<String>,
}

impl Default for Policy {
    /// The defaults of the contract's section 4; without a scope, which has no default in a file.
    fn default() -> Self {
        let second = Duration::from_secs;
        Self {
            mode: Mode::Enforce,
            guard: Guard::NonIdempotent,
            key: vec![KeySource::Header(HeaderName::from_static("idempotency-key"))],
            key_required: false,
            key_format: KeyFormat::Any,
            scope: None,
            authority: AuthorityMatch::Match,
            fingerprint: vec![
                FingerprintPart::Method,
                FingerprintPart::Path,
                FingerprintPart::Query,
                FingerprintPart::ContentType,
                FingerprintPart::Body,
            ],
            on_in_flight: OnInFlight::Wait,
            wait_timeout: second(30),
            max_waiters: 100,
            on_duplicate: OnDuplicate::Replay,
            on_unknown: OnUnknown::Hold,
            on_store_down: OnStoreDown::Reject,
            on_body_too_large: OnBodyTooLarge::Reject,
            release_on: [401, 403, 407, 421, 425, 429]
                .map(StatusMatch::any)
                .into_iter()
                .chain([StatusMatch { status: 503, with_retry_after: true }])
                .collect(),
            unknown_on: [408, 502, 503, 504].map(StatusMatch::any).into_iter().collect(),
            retention: second(24 * 60 * 60),
            unknown_retention: second(30 * 24 * 60 * 60),
            response_timeout: second(30),
            outcome_timeout: second(5 * 60),
            pass_timeout: None,
            max_request_body: 1 << 20,
            max_response_body: 1 << 20,
            stream_types: ["text/event-stream", "application/x-ndjson", "multipart/x-mixed-replace"]
                .map(str::to_owned)
                .to_vec(),
            drop_headers: vec![http::header::SET_COOKIE],
            error_format: ErrorFormat::Problem,
            docs_url: None,
        }
    }
}

/// `mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Guard.
    Enforce,
    /// Pass, and count what enforcing would have done (contract: R-24).
    Observe,
    /// Pass.
    Off,
}

/// `guard`: which methods are deduplicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Those that RFC 9110 calls neither safe nor idempotent (contract: R-2).
    NonIdempotent,
    /// Exactly these.
    Methods(Vec<Method>),
}

/// Where a key is looked for (contract: R-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `header:NAME`
    Header(HeaderName),
    /// `query:NAME`
    Query(String),
    /// `json:/pointer` (RFC 6901), the pointer with its leading slash, not yet unescaped.
    Json(String),
    /// `form:FIELD`
    Form(String),
    /// Several, joined by `+`; needs all of them. Never holds a composite or a content source.
    Composite(Vec<Self>),
    /// `content:WINDOW`: the fingerprint is the key, within the window from settlement.
    Content {
        /// How long two equal requests are one.
        window: Duration,
    },
}

/// `key_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// Any key that R-4 lets through.
    Any,
    /// 8-4-4-4-12 hex digits.
    Uuid,
}

/// `scope`: whose keys these are (contract: R-5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All callers are one.
    Shared,
    /// Callers are told apart by these.
    Parts(Vec<ScopePart>),
}

/// A part of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopePart {
    /// `header:NAME`
    Header(HeaderName),
    /// `cookie:NAME`
    Cookie(String),
    /// `query:NAME`
    Query(String),
    /// `tls:subject`
    TlsSubject,
}

/// `authority`: is the host name part of the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityMatch {
    /// It is.
    Match,
    /// It is not.
    Ignore,
}

/// A part of a fingerprint (contract: R-6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FingerprintPart {
    /// `method`
    Method,
    /// `path`, as sent.
    Path,
    /// `query`, as sent; absent and empty differ.
    Query,
    /// `content-type`, without the boundary.
    ContentType,
    /// `body`, its bytes; `multipart/*` by its parts.
    Body,
    /// `json-body`, in RFC 8785 form.
    JsonBody,
    /// `header:NAME`
    Header(HeaderName),
}

/// `on_in_flight`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInFlight {
    /// Join the owner.
    Wait,
    /// 409 at once.
    Reject,
}

/// `on_duplicate`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The stored answer.
    Replay,
    /// 409 `duplicate`.
    Reject,
    /// 200, empty.
    Ack,
}

/// `on_unknown`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// 409 until resolved.
    Hold,
    /// Run it anew: an opt-out of at-most-once.
    Retry,
}

/// `on_store_down`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreDown {
    /// 503.
    Reject,
    /// Forward unguarded: an opt-out of at-most-once.
    Forward,
}

/// `on_body_too_large`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBodyTooLarge {
    /// 413.
    Reject,
    /// Forward unguarded.
    Pass,
}

/// `error_format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// RFC 9457.
    Problem,
    /// The shape Stripe's clients read.
    Stripe,
}

/// One entry of `release_on` or `unknown_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatusMatch {
    /// The status code.
    pub status: u16,
    /// `"503+retry-after"`: only when the answer has that field.
    pub with_retry_after: bool,
}

impl StatusMatch {
    /// This status, with or without `Retry-After`.
    #[must_use]
    pub const fn any(status: u16) -> Self {
        Self { status, with_retry_after: false }
    }
}

/// A set of statuses, some only with `Retry-After`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusSet(Vec<StatusMatch>);

impl StatusSet {
    /// Whether an answer is in the set.
    #[must_use]
    pub fn holds(&self, status: u16, retry_after: bool) -> bool {
        self.0.iter().any(|entry| entry.status == status && (retry_after || !entry.with_retry_after))
    }

    /// The entries, in the order given.
    #[must_use]
    pub fn entries(&self) -> &[StatusMatch] {
        &self.0
    }
}

impl FromIterator<StatusMatch> for StatusSet {
    fn from_iter<I: IntoIterator<Item = StatusMatch>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
