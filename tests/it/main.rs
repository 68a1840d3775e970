//! Oncegate over real sockets: the real binary between a scripted upstream and a raw client.
//!
//! [`harness`] has the three nouns; each other module is a theme of the contract. A test that shows a rule names it in a
//! comment, and `tests/rules.rs` lists the rules that no test names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(clippy::disallowed_methods, reason = "these tests look at another process from outside: time is real here")]

mod harness;

mod admin;
mod body;
mod certificates;
mod claim;
mod clients;
mod concurrency;
mod drain;
mod early;
mod exchange;
mod fingerprint;
mod frames;
mod headers;
mod held;
mod identity;
mod key;
mod metrics;
mod night;
mod observe;
mod old;
mod passing;
mod problems;
mod process;
mod proxied;
mod proxying;
mod redis;
mod redis_acl;
mod reload;
mod routing;
#[path = "../support/redis.rs"]
mod servers;
mod smuggling;
mod stored;
mod storm;
