//! `mode = "observe"` (contract: R-24): the request streams as if there were no guard; beside it, what enforcing would
//! have done is worked out and counted. Nothing is added to the answer, nothing refused, nothing waited for.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use tokio::{sync::oneshot, time::timeout};

use super::{
    Proxy, Reply, Visit, Visitor,
    client_body::{ClientBody, join},
    guarded::{Early, admissible},
    headers,
};
use crate::{
    body::{BodyError, RequestBody},
    desk::{Boarding, Booking, Held, Keep, Permit},
    rule::{
        self, Answer, Attempt, Loss, RecordId, Stored,
        fingerprint::fingerprint,
        identity::Space,
        key::{self, Search},
        policy::{OnBodyTooLarge, OnDuplicate},
        problem::Problem,
        record::ShortId,
    },
    store::Store,
    telemetry::{
        access,
        log::Log,
        metrics::{RouteMetrics, Unguarded, Would},
    },
};

/// How long the store may take before an observation is dropped: what comes later is of no use to anybody.
const LATE: Duration = Duration::from_secs(1);

/// How the answer that was passed ended, told by the account when it closes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    NeverSent,
    Lost,
    Answered {
        status: u16,
        retry_after: bool,
        /// Whether enforcing would have kept it.
        kept: bool,
    },
}

/// Waits in an account for the answer's end.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(super) tell: oneshot::Sender<Ended>,
    pub(super) retry_after: bool,
    /// The most that would be kept; 0 for a stream.
    pub(super) kept_most: u64,
}

impl<S: Store> Proxy<S> {
    /// Passes a request, and works out beside it what guarding would have done.
    pub(super) async fn observe(&self, visitor: Visitor, body: ClientBody, visit: &mut Visit) -> Reply {
        let policy = &visitor.route.policy;
        let found = {
            let head = visitor.rule_head();
            match (key::shadowed(policy, head.headers), key::search(policy, &head)) {
                (Some(_), _) => Err(Some(Problem::BadRequest)),
                (None, Err(_)) => Err(Some(Problem::KeyMalformed)),
                (None, Ok(Search::Absent)) => Err(policy.key_required.then_some(Problem::KeyMissing)),
                (None, Ok(Search::Found(_) | Search::NeedsBody)) => Ok(()),
            }
        };
        if let Err(refused) = found {
            if let Some(problem) = refused {
                Verdict::of(problem).tell(&self.shared.log, &visit.metrics, &visitor);
            }
            return self.pass(visitor, RequestBody::stream(body), visit, None).await;
        }
        let Some(permit) = self.shared.observing.try_hold() else {
            visit.metrics.unguarded(Unguarded::StoreDown);
            return self.pass(visitor, RequestBody::stream(body), visit, None).await;
        };
        let (tell, ended) = oneshot::channel();
        let (seen, body_seen) = oneshot::channel();
        let limit = policy.max_request_body;
        let tee = Tee { body, seen: Some(seen), parts: Vec::new(), bytes: 0, limit, held: self.shared.buffered.hold() };
        let observed = twin(&visitor);
        let stream_types = Arc::clone(&visitor.route);
        let metrics = Arc::clone(&visit.metrics);
        tokio::spawn(self.clone().watch(observed, body_seen, ended, metrics, permit));
        let body = if tee.body.is_end_stream() { tee.whole() } else { RequestBody::stream(tee) };
        let reply = self.pass(visitor, body, visit, None).await;
        let answer = reply.response.headers();
        let streamed = headers::is_media_type(answer, &stream_types.policy.stream_types);
        visit.observer = Some(Box::new(Observer {
            tell,
            retry_after: answer.contains_key(header::RETRY_AFTER),
            kept_most: if streamed { 0 } else { stream_types.policy.max_response_body },
        }));
        reply
    }

    /// Works out what guarding would have done, and keeps the record that the next request is compared with.
    async fn watch(
        self,
        visitor: Visitor,
        body: oneshot::Receiver<Seen>,
        ended: oneshot::Receiver<Ended>,
        metrics: Arc<RouteMetrics>,
        _permit: Permit,
    ) {
        // The client left before its body was complete: no record.
        let Ok(body) = body.await else { return };
        let policy = &visitor.route.policy;
        let head = visitor.rule_head();
        let tell = |verdict: Verdict| verdict.tell(&self.shared.log, &metrics, &visitor);
        let body = match body {
            Seen::Whole(body) => body,
            Seen::Trailers => return tell(Verdict::of(Problem::BadRequest)),
            Seen::TooLong => {
                let has_key = key::search_past_body(policy, &head).is_ok_and(|key| key.is_some());
                if policy.key_required || (has_key && policy.on_body_too_large == OnBodyTooLarge::Reject) {
                    tell(Verdict::of(Problem::BodyTooLarge));
                }
                return;
            }
        };
        let key = match key::search_body(policy, &head, &body, &self.shared.id_key) {
            Ok(Some(key)) => key,
            Ok(None) if !policy.key_required => return,
            Ok(None) => return tell(Verdict::of(Problem::KeyMissing)),
            Err(_) => return tell(Verdict::of(Problem::KeyMalformed)),
        };
        let scope = match admissible(&visitor) {
            Ok(scope) => scope,
            Err(Early::Pass(why)) => return metrics.unguarded(why),
            Err(Early::Refuse(refusal)) => return tell(Verdict::of(refusal.problem)),
        };
        let id = self.record_id(&visitor, Space::Observe, &scope, &key);
        let fingerprint = fingerprint(&self.shared.id_key, policy, &head, &body);
        let booking = Booking {
            id: &id,
            fingerprint,
            policy,
            route: &visitor.route.name,
            keep: Keep::of(policy, key.content),
            observed: true,
        };
        let desk = &self.shared.desk;
        let Ok(Ok(boarding)) = timeout(LATE, desk.board(booking)).await else {
            return metrics.unguarded(Unguarded::StoreDown);
        };
        let would = |would| Verdict { would, why: None, record: None };
        let verdict = match boarding {
            Boarding::Claimed(mut claim) => {
                tell(would(Would::Executed).about(&id));
                let ended = desk.tend(&mut claim, ended).await.unwrap_or(Ended::Lost);
                let record = rule::settle(policy, fingerprint, ended.attempt());
                _ = desk.settle(claim, record).await;
                return;
            }
            Boarding::Replay(replay) => match policy.on_duplicate {
                OnDuplicate::Reject => Verdict::of(Problem::Duplicate),
                OnDuplicate::Replay | OnDuplicate::Ack if replay.stored.would_be_kept() => would(Would::Replayed),
                OnDuplicate::Replay | OnDuplicate::Ack => would(Would::NotKept),
            },
            Boarding::InFlight { .. } => would(Would::InFlight),
            Boarding::Mismatch => would(Would::KeyReused),
            Boarding::Unknown => would(Would::Unknown),
            Boarding::Overloaded => Verdict::of(Problem::Overloaded),
            Boarding::Draining => Verdict::of(Problem::Draining),
        };
        tell(verdict.about(&id));
    }
}

/// What enforcing would have done with a request.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    would: Would,
    /// Why it would have been rejected.
    why: Option<Problem>,
    record: Option<ShortId>,
}

impl Verdict {
    const fn of(problem: Problem) -> Self {
        Self { would: Would::Rejected, why: Some(problem), record: None }
    }

    fn about(self, id: &RecordId) -> Self {
        Self { record: Some(id.short()), ..self }
    }

    /// Counts it; and where requests are logged, says it of this one.
    fn tell(self, log: &Log, metrics: &RouteMetrics, visitor: &Visitor) {
        metrics.observed(self.would);
        if !log.access_is_on() {
            return;
        }
        let trace_id = visitor.head.headers.get("traceparent").and_then(|value| access::trace_id(value.as_bytes()));
        tracing::info!(
            method = visitor.head.method.as_str(),
            route = &*visitor.route.name.0,
            path = visitor.head.uri.path(),
            would = self.would.word(),
            why = self.why.map(Problem::code),
            record = self.record.map(tracing::field::display),
            trace_id,
            "observed"
        );
    }
}

impl Ended {
    /// The attempt as enforcing would have seen it; its record holds no answer.
    fn attempt(self) -> Attempt<Stored> {
        match self {
            Self::NeverSent => Attempt::NeverSent,
            Self::Lost => Attempt::Lost(Loss::Broken),
            Self::Answered { status, retry_after, kept } => {
                Attempt::Answered(Answer { status, retry_after, response: Stored::observed(status, kept) })
            }
        }
    }
}

/// The same visitor once more, for what happens beside its request.
fn twin(visitor: &Visitor) -> Visitor {
    let (mut head, ()) = Request::new(()).into_parts();
    head.version = visitor.head.version;
    head.method = visitor.head.method.clone();
    head.uri = visitor.head.uri.clone();
    head.headers = visitor.head.headers.clone();
    Visitor {
        live: Arc::clone(&visitor.live),
        route: Arc::clone(&visitor.route),
        connection: Arc::clone(&visitor.connection),
        interim: None,
        head,
    }
}

/// What was seen of a body that streamed on.
enum Seen {
    Whole(Bytes),
    /// More than there is room to remember.
    TooLong,
    Trailers,
}

/// A body that streams on, and is remembered up to a limit.
struct Tee {
    body: ClientBody,
    seen: Option<oneshot::Sender<Seen>>,
    parts: Vec<Bytes>,
    bytes: u64,
    limit: u64,
    held: Held,
}

impl Tee {
    /// Of a request without a body.
    fn whole(mut self) -> RequestBody {
        self.ended();
        RequestBody::full(Bytes::new())
    }

    fn ended(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        self.tell(|| Seen::Whole(join(parts)));
    }

    fn tell(&mut self, what: impl FnOnce() -> Seen) {
        if let Some(seen) = self.seen.take() {
            // Nobody listens once the observation was dropped.
            _ = seen.send(what());
        }
    }

    fn remember(&mut self, data: &Bytes) {
        self.bytes += data.len() as u64;
        if self.seen.is_some() && (self.bytes > self.limit || !self.held.grow(data.len() as u64)) {
            self.parts = Vec::new();
            self.tell(|| Seen::TooLong);
        }
        if self.seen.is_some() {
            self.parts.push(data.clone());
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                match frame.data_ref() {
                    Some(data) => self.remember(data),
                    None => self.tell(|| Seen::Trailers),
                }
                if self.body.is_end_stream() {
                    self.ended();
                }
            }
            Poll::Ready(None) => self.ended(),
            // Dropped untold: the body never was complete.
            Poll::Ready(Some(Err(_))) => self.seen = None,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
