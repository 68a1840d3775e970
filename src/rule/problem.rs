//! The problems that Oncegate answers with: one row of the contract's section 6 each.

/// A problem's code. Each is a row of the contract's section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The route requires a key and the request has none.
    KeyMissing,
    /// The key breaks R-4.
    KeyMalformed,
    /// The request carries a credential, but none of the scope's parts.
    ScopeMissing,
    /// The scope's value changes with each request.
    ScopeUnstable,
    /// The request is malformed.
    BadRequest,
    /// The key was used for another request.
    KeyReused,
    /// An owner is at work.
    InFlight,
    /// The client's patience ended; the exchange goes on.
    StillRunning,
    /// Sent, and no whole answer came.
    OutcomeUnknown,
    /// `on_duplicate = "reject"`
    Duplicate,
    /// Executed; the answer cannot be given again.
    ResponseNotKept,
    /// The body is longer than `max_request_body`.
    BodyTooLarge,
    /// `Early-Data: 1`
    TooEarly,
    /// The store could not be asked.
    StoreUnavailable,
    /// A bound was reached.
    Overloaded,
    /// The store has no room for a new record.
    StoreFull,
    /// Oncegate is shutting down.
    Draining,
    /// Proven: nothing was sent.
    UpstreamUnreachable,
    /// Proven: the connection was not made in time.
    UpstreamConnectTimeout,
    /// An unguarded request's upstream failed.
    UpstreamFailed,
    /// No route matches.
    NoRoute,
}

/// Whether the request was executed, as far as Oncegate can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// It was not.
    No,
    /// It was.
    Yes,
    /// Do not repeat it under a new key.
    Maybe,
}

/// What a client should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Repeat it with the same key.
    Safe,
    /// Repeat it with the same key, later.
    Wait,
    /// Do not repeat it as it is.
    Never,
}

impl Executed {
    /// The member's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Maybe => "maybe",
        }
    }
}

impl Retry {
    /// The member's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Wait => "wait",
            Self::Never => "never",
        }
    }
}

/// The fixed part of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `code`, and the end of `type`.
    pub code: &'static str,
    /// The status where nothing else decides it.
    pub status: u16,
    /// `title`
    pub title: &'static str,
    /// `executed`
    pub executed: Option<Executed>,
    /// `Retry-After`, whole seconds; `None` also where the owner's age decides.
    pub retry_after: Option<u64>,
    /// `retry`, and whether `Stripe-Should-Retry` is `true` (safe, wait) or `false`.
    pub retry: Option<Retry>,
    /// `detail`: is repeating safe, and with which key.
    pub detail: &'static str,
}

impl Problem {
    /// Every problem, in the order of the contract.
    pub const ALL: [Self; 21] = [
        Self::KeyMissing,
        Self::KeyMalformed,
        Self::ScopeMissing,
        Self::ScopeUnstable,
        Self::BadRequest,
        Self::KeyReused,
        Self::InFlight,
        Self::StillRunning,
        Self::OutcomeUnknown,
        Self::Duplicate,
        Self::ResponseNotKept,
        Self::BodyTooLarge,
        Self::TooEarly,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::StoreFull,
        Self::Draining,
        Self::UpstreamUnreachable,
        Self::UpstreamConnectTimeout,
        Self::UpstreamFailed,
        Self::NoRoute,
    ];

    /// The problem's code: `key-missing`, …
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().code
    }

    /// The problem's row in the contract's table.
    #[must_use]
    pub const fn row(self) -> Row {
        use Executed::{Maybe, No, Yes};
        use Retry::{Never, Safe, Wait};
        macro_rules! row {
            ($code:literal $status:literal $title:literal, $executed:expr, $after:expr, $retry:expr, $detail:literal) => {
                Row {
                    code: $code,
                    status: $status,
                    title: $title,
                    executed: $executed,
                    retry_after: $after,
                    retry: $retry,
                    detail: $detail,
                }
            };
        }
        match self {
            Self::KeyMissing => row!("key-missing" 400 "Idempotency-Key is missing", Some(No), None, Some(Never),
                "This route requires an idempotency key; nothing was sent on, and the request is safe to send with a key of its own."),
            Self::KeyMalformed => row!("key-malformed" 400 "Idempotency-Key is malformed", Some(No), None, Some(Never),
                "The idempotency key cannot be read; nothing was sent on, and the request is safe to send with one well-formed key of 1 to 255 bytes."),
            Self::ScopeMissing => {
                row!("scope-missing" 400 "The caller cannot be told apart", Some(No), None, Some(Never),
                "The request carries a credential, but none of those that tell this route's callers apart; nothing was sent on.")
            }
            Self::ScopeUnstable => {
                row!("scope-unstable" 400 "The caller cannot be told apart", Some(No), None, Some(Never),
                "The credential that tells this route's callers apart changes with each request, so a retry could not be recognised; nothing was sent on.")
            }
            Self::BadRequest => row!("bad-request" 400 "The request is malformed", Some(No), None, Some(Never),
                "The request is malformed or ambiguous; nothing was sent on, and repeating it as it is will not help."),
            Self::KeyReused => row!("key-reused" 422 "Idempotency-Key is already used", None, None, Some(Never),
                "The idempotency key belongs to a different request; repeat that request unchanged with this key, or send this one with a new key."),
            Self::InFlight => {
                row!("in-flight" 409 "A request is outstanding for this Idempotency-Key", Some(Maybe), None, Some(Wait),
                "The first request with this idempotency key is still under way; repeat with the same key later, never with a new one.")
            }
            Self::StillRunning => {
                row!("still-running" 504 "The request is still running", Some(Maybe), None, Some(Wait),
                "The request was sent on and is still running; repeat with the same key to get its answer, never with a new one.")
            }
            Self::OutcomeUnknown => {
                row!("outcome-unknown" 502 "The outcome of the request is unknown", Some(Maybe), None, Some(Never),
                "The request was sent on and no whole answer came; it may have been executed, so do not repeat it under a new key before it is looked into.")
            }
            Self::Duplicate => row!("duplicate" 409 "This request was already executed", Some(Yes), None, Some(Never),
                "The request with this idempotency key was executed; there is nothing to repeat."),
            Self::ResponseNotKept => {
                row!("response-not-kept" 409 "The request was executed; its response was not kept", Some(Yes), None, Some(Never),
                "The request with this idempotency key was executed, but its response was not kept; do not repeat it under a new key.")
            }
            Self::BodyTooLarge => {
                row!("body-too-large" 413 "The request body is too large", Some(No), None, Some(Never),
                "The request body is longer than this route accepts; nothing was sent on.")
            }
            Self::TooEarly => row!("too-early" 425 "The request came as early data", Some(No), None, Some(Safe),
                "The request came as TLS early data, which can be replayed; nothing was sent on, and it is safe to repeat with the same key."),
            Self::StoreUnavailable => {
                row!("store-unavailable" 503 "The idempotency store is unavailable", Some(No), Some(1), Some(Safe),
                "This request was not sent on, since the idempotency store could not be asked; it is safe to repeat with the same key.")
            }
            Self::Overloaded => row!("overloaded" 503 "Too many requests are under way", Some(No), Some(1), Some(Safe),
                "This request was not sent on, since too many are under way; it is safe to repeat with the same key."),
            Self::StoreFull => row!("store-full" 503 "The idempotency store is full", Some(No), Some(30), Some(Safe),
                "This request was not sent on, since the idempotency store has no room for its record; it is safe to repeat with the same key."),
            Self::Draining => row!("draining" 503 "Oncegate is shutting down", Some(Maybe), Some(1), Some(Wait),
                "Oncegate is shutting down while the first request with this key may be under way; repeat with the same key, never with a new one."),
            Self::UpstreamUnreachable => {
                row!("upstream-unreachable" 502 "The upstream could not be reached; nothing was executed", Some(No), Some(1), Some(Safe),
                "The request was not sent, since no connection to the upstream could be had; it is safe to repeat with the same key.")
            }
            Self::UpstreamConnectTimeout => {
                row!("upstream-connect-timeout" 504 "The upstream could not be reached; nothing was executed", Some(No), Some(1), Some(Safe),
                "The request was not sent, since the connection to the upstream was not made in time; it is safe to repeat with the same key.")
            }
            Self::UpstreamFailed => row!("upstream-failed" 502 "The upstream failed", None, None, None,
                "The upstream broke off or did not answer in time; this request was not guarded, so whether it was executed is not known here."),
            Self::NoRoute => row!("no-route" 404 "No route matches", Some(No), None, Some(Never),
                "No route of this proxy matches the request; nothing was sent on."),
        }
    }
}
