//! The admin API (contract: section 9): health, metrics, the settled configuration, and the operator's hand on records.
//!
//! Served on a socket of its own, never on the data port. Health and metrics are open; the rest asks for a token, or is
//! on a Unix socket that only its owner may open. Every change is one [`swap`](Store::swap) of the version that was
//! looked at, like any other owner's, and is logged with who made it.
//!
//! *Architecture invariant:* nothing here knows the proxy or the desk; what is theirs to tell comes as [`Process`].

mod access;
mod answer;
mod base64;
mod change;
mod endpoint;
mod find;
mod listener;
mod records;
mod serve;
mod view;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use http::StatusCode;

use self::{
    access::Caller,
    answer::{Answer, Problem},
    endpoint::Endpoint,
};
pub use self::{listener::Listener, serve::serve};
use crate::{
    config::{self, Config},
    rule::identity::IdKey,
    store::Store,
    telemetry::metrics::OperatorChange,
};

/// What operators are served from.
pub struct Admin<S> {
    /// Where the records are.
    pub store: Arc<S>,
    /// The rest of the process.
    pub process: Box<dyn Process>,
    /// Whether requests are taken.
    pub readiness: Arc<Readiness>,
    /// Keys the record ids, for `find`.
    pub id_key: IdKey,
    /// Holds the bearer token. Read for each request, so that a new token needs no restart.
    pub token_file: Option<PathBuf>,
}

/// What the rest of the process tells operators.
pub trait Process: Send + Sync + 'static {
    /// The configuration that new requests meet.
    fn config(&self) -> Arc<Config>;

    /// Every metric, in the Prometheus text format.
    fn metrics(&self) -> String;

    /// An operator changed a record (contract: P-1).
    fn changed(&self, change: OperatorChange);
}

/// Whether requests are taken; shared by the thread that knows with those that ask.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// The first configuration is in force.
    pub fn ready(&self) {
        // A drain that began meanwhile is not taken back.
        _ = self.0.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The drain has begun; it has no way back.
    pub fn draining(&self) {
        self.0.store(DRAINING, Ordering::Relaxed);
    }

    /// Why requests are not taken; `None` when they are.
    fn why_not(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Relaxed) {
            READY => None,
            DRAINING => Some("Oncegate is draining: it takes no new requests."),
            _ => Some("Oncegate is starting: it has no configuration yet."),
        }
    }
}

impl<S: Store> Admin<S> {
    /// Does what an authorised caller asks.
    async fn answer(&self, endpoint: Endpoint<'_>, call: Call<'_>) -> Result<Answer, Problem> {
        match endpoint {
            Endpoint::Live => Ok(Answer::json(&serde_json::json!({ "alive": true }))),
            Endpoint::Ready => self.ready(call.query),
            Endpoint::Metrics => Ok(Answer::metrics(self.process.metrics())),
            Endpoint::Config => Ok(Answer::json(&config::show(&self.process.config()))),
            Endpoint::List => self.list(call.query).await,
            Endpoint::Show(name) => self.show(name).await,
            Endpoint::Find => self.find(&call).await,
            Endpoint::Resolve(name) => self.resolve(name, &call).await,
            Endpoint::Forget(name) => self.forget(name, &call).await,
        }
    }

    /// Contract: section 9. A store that is down does not make a process unready, since requests without a key pass
    /// (P-7), unless the caller asks for the store too.
    fn ready(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let why_not = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        if let Some(detail) = self.readiness.why_not() {
            return Err(why_not(detail));
        }
        let asks_for_store =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).any(|(name, _)| name == "store");
        if asks_for_store && !self.store.figures().up {
            return Err(why_not(
                "The idempotency store does not answer, or guarded requests are refused for what it is.",
            ));
        }
        Ok(Answer::json(&serde_json::json!({ "ready": true })))
    }
}

/// A request to the admin API, past its door.
struct Call<'a> {
    caller: Caller,
    query: Option<&'a str>,
    /// `If-Match`, where there is one.
    if_match: Option<&'a [u8]>,
    body: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_not_taken_back() {
        let readiness = Readiness::default();
        assert!(readiness.why_not().is_some());
        readiness.ready();
        assert!(readiness.why_not().is_none());
        readiness.draining();
        readiness.ready();
        assert!(readiness.why_not().is_some());
    }
}
