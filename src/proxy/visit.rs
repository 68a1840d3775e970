//! The account of one request: opened at its head, closed once, when its answer ended or its client went away.
//!
//! One [`Outcome`] a request yields the metric, the access line and the response field; nothing else decides these.

use std::{
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Method, Uri};

use super::observe::{Ended, Observer};
use crate::{
    clock::{self, Instant},
    rule::{Outcome, RecordId, RouteName, method::Class, problem::Problem, record::ShortId},
    telemetry::{
        access::{self, Line},
        log::Log,
        metrics::RouteMetrics,
    },
};

/// Why an answer's end is not its end.
pub(crate) const BROKE_OFF: &str = "answer-broke-off";

/// What nginx logs when a client goes away before it has its answer.
const CLIENT_GONE: u16 = 499;

/// What a request's metric and access line are made of.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) log: Arc<Log>,
    pub(crate) metrics: Arc<RouteMetrics>,
    /// The route's name, as metrics show it.
    pub(crate) route: RouteName,
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) class: Class,
    pub(crate) started: Instant,
    pub(crate) traceparent: Option<HeaderValue>,
    pub(crate) record: Option<ShortId>,
    pub(crate) upstream_took: Option<Duration>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) why: Option<&'static str>,
    pub(crate) cause: Option<&'static str>,
    /// Waits for the answer's end.
    pub(crate) observer: Option<Box<Observer>>,
}

impl Account {
    fn close(mut self) {
        if let Some(observer) = self.observer.take() {
            self.tell(*observer);
        }
        let took = clock::now() - self.started;
        self.metrics.finished(self.class, &self.outcome, took);
        if self.log.access_is_on() {
            let trace = self.traceparent.as_ref().and_then(|value| access::trace_id(value.as_bytes()));
            self.log.access(&Line {
                client: self.client,
                method: self.method.as_str(),
                route: &self.route.0,
                path: self.uri.path(),
                status: self.status,
                outcome: self.outcome.label(),
                record: self.record,
                trace_id: trace,
                took,
                upstream_took: self.upstream_took,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
                why: self.why,
                cause: self.cause,
            });
        }
    }
}

impl Account {
    /// Tells an observer how the answer ended. A client that went away changes nothing: enforcing would have gone on.
    fn tell(&self, observer: Observer) {
        let Observer { tell, retry_after, kept_most } = observer;
        let failed = self.outcome == Outcome::Failed;
        let ended = if failed && self.status != CLIENT_GONE && self.why != Some(Problem::UpstreamFailed.code()) {
            Ended::NeverSent
        } else if (failed && self.status != CLIENT_GONE) || self.why == Some(BROKE_OFF) {
            Ended::Lost
        } else {
            Ended::Answered { status: self.status, retry_after, kept: self.bytes_out <= kept_most }
        };
        // Nobody listens once the observation was dropped.
        _ = tell.send(ended);
    }
}

/// An open [`Account`], closed when dropped.
#[derive(Debug)]
pub(crate) struct Visit(Option<Box<Account>>);

impl Visit {
    /// Opens an account. Until it is told otherwise, the client went away before it had an answer.
    pub(crate) fn open(account: Account) -> Self {
        Self(Some(Box::new(Account { status: CLIENT_GONE, outcome: Outcome::Failed, ..account })))
    }

    pub(crate) fn record(&mut self, id: &RecordId) {
        self.record = Some(id.short());
    }

    /// Leaves the account to somebody else, who keeps what this returns.
    pub(crate) fn hand_over(&mut self) -> Box<Account> {
        self.0.take().expect("an account is open until its visit ends")
    }

    /// Takes an account over.
    pub(crate) fn resume(account: Box<Account>) -> Self {
        Self(Some(account))
    }
}

impl Deref for Visit {
    type Target = Account;

    fn deref(&self) -> &Account {
        self.0.as_ref().expect("an account is open until its visit ends")
    }
}

impl DerefMut for Visit {
    fn deref_mut(&mut self) -> &mut Account {
        self.0.as_mut().expect("an account is open until its visit ends")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(account) = self.0.take() {
            account.close();
        }
    }
}
