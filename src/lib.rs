//! Oncegate: a standalone idempotency reverse proxy. Put it in front of any HTTP API and POST becomes safe to retry.
//!
//! # Bird's-eye view
//!
//! A request that carries an idempotency key is brought to its *record*. Whoever finds none *claims* the key, forwards
//! the request, and *settles*: the answer is stored before it is told. Everybody after that gets the stored answer, or
//! an honest refusal. Everything else streams through untouched.
//!
//! **The rule is a value-in, value-out function; everything else carries bytes to and from it.** What may happen to a
//! request is decided by [`rule::admit`] and [`rule::settle`], which know no clock, no randomness, no `async` and no
//! store. A store knows no states: it keeps versioned cells and swaps one for another if it is still the one that was
//! seen ([`store::Store`]). `tests/model.rs` walks every interleaving of the two with crashes, lost replies and late
//! owners.
//!
//! # Code map
//!
//! | module | is |
//! | --- | --- |
//! | [`rule`] | the pure core: method table, key, identity, fingerprint, admit and settle, problems, outcomes |
//! | [`store`] | the contract of a store; records in memory, or in Redis; wrappers that measure and that fail on demand |
//! | [`desk`] | claim, wait, renew, settle: all of the concurrency around a record |
//! | [`upstream`] | pools of connections; decides, from counted bytes, whether a request was sent |
//! | [`proxy`] | the path of a request: find its route, classify, pass or guard; the detached exchange |
//! | [`server`] | accept, the guard over raw heads, deadlines, TLS, HTTP/2, drain of connections |
//! | [`admin`] | health, metrics, records, for operators |
//! | [`config`] | TOML text in, a [`config::Config`] that cannot be wrong out, or every error at once |
//! | [`telemetry`] | metrics, access lines, events |
//! | [`cli`] | the commands; [`cli::run`] puts the process together and takes it apart |
//! | [`body`], [`clock`], [`crypto`], [`tcp`] | leaves: request bodies, the only place that asks what time it is, what TLS is made of, what every connection is asked for |
//!
//! Dependencies point one way: `cli → proxy → desk → {store, upstream} → rule`, with `server` below `proxy`; `rule`
//! imports none of the others, and leaves import next to nothing. `tests/architecture.rs` enforces it.
//!
//! # A request's way
//!
//! [`server`] accepts and guards the head → [`proxy`] finds the route and classifies the method (pass: stream straight
//! through) → reads the body, bounded → identity and fingerprint → [`desk`], usually one trip to the store → a detached
//! task forwards and settles, and the client waits for it → one [`rule::Outcome`] yields metric, access line and
//! response field. No step calls back up; no step looks twice.
//!
//! # Invariants, above all what is deliberately absent
//!
//! * `rule` knows no clock, no randomness and no store; no state machine exists twice.
//! * Nothing frees a key but a settlement that proves that nothing was executed. There is no clean-up path: a crash, a
//!   panic or a dropped task leave a record in flight, which lapses into unknown.
//! * The lease is in the record, never the record's expiry: a slow upstream cannot erase its own record.
//! * Versions are drawn at random, never counted; only ages by the store's own clock are compared, never two hosts'.
//! * The exchange is nobody's to cancel: not the client's, not a reload's; only `outcome_timeout` or a drain's end stop it.
//! * A request is dispatched once. In doubt whether it was, it was.
//! * Keys, scope values, queries, field values and bodies are in no log line, metric or record id.
//! * Every queue, wait and buffer has a bound.

pub mod admin;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod desk;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod proxy;
pub mod rule;
pub mod server;
pub mod store;
pub mod tcp;
pub mod telemetry;
pub mod upstream;
