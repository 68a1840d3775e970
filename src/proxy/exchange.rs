//! The detached exchange: a task of its own forwards, settles, and only then tells the client, if it is there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};

use super::{
    Live, Payload, Proxy, Reply, Visit,
    body::{Guarded, Rest},
    client_body::join,
    finish,
    headers::{self, IDEMPOTENCY_STATUS, IDEMPOTENT_REPLAYED},
    refusal::Refusal,
    refused, trouble,
    visit::Account,
};
use crate::{
    body::RequestBody,
    clock::{self, Instant},
    config::settled::Route,
    desk::{Claim, Held, Keep, Settled},
    rule::{
        self, Answer, Attempt, Loss, Outcome, Policy, Record, RecordId, Stored, policy::OnUnknown, problem::Problem,
    },
    store::Store,
    telemetry::metrics::Released,
    upstream::{Plan, SendError, Unsent, Upstream, UpstreamBody},
};

/// What is to be forwarded.
pub(super) struct Errand {
    pub(super) live: Arc<Live>,
    pub(super) route: Arc<Route>,
    pub(super) id: RecordId,
    pub(super) keep: Keep,
    pub(super) request: Request<RequestBody>,
    /// The bodies' place in `max_buffered`.
    pub(super) held: Held,
}

impl Errand {
    pub(super) fn policy(&self) -> &Policy {
        &self.route.policy
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }
}

/// By what right a request is forwarded.
pub(super) enum Right {
    /// It holds its key.
    Claimed(Claim),
    /// The store is down and policy forwards all the same; a claim of unknown fate may exist.
    Unguarded(Option<Claim>),
}

/// How an exchange ended, with what is needed to answer.
enum Fetched {
    /// A whole answer.
    Whole {
        head: response::Parts,
        body: Vec<Bytes>,
        trailers: Option<HeaderMap>,
    },
    /// A head that is let go before the answer is whole, what came with it, and the rest.
    LetGo {
        head: response::Parts,
        body: Vec<Bytes>,
        rest: UpstreamBody,
    },
    NeverSent(Unsent),
    Lost(Loss),
}

/// The account of the request: whoever takes it tells.
type Slot = Arc<Mutex<Option<Box<Account>>>>;

fn take(slot: &Slot) -> Option<Visit> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take().map(Visit::resume)
}

impl<S: Store> Proxy<S> {
    /// Starts the exchange and waits for its end, up to `response_timeout`.
    pub(super) async fn exchange(&self, errand: Errand, right: Right, visit: &mut Visit) -> Reply {
        let (route, id) = (Arc::clone(&errand.route), errand.id);
        let policy = &route.policy;
        let started = clock::now();
        let slot: Slot = Arc::new(Mutex::new(Some(visit.hand_over())));
        let (tell, told) = oneshot::channel();
        // A current-thread runtime: the exchange stays on the thread of its connection.
        tokio::spawn(self.clone().run(errand, right, started, Arc::clone(&slot), tell));
        let patience = async {
            // An exchange ends by itself at `outcome_timeout`, and says more than a client's patience can.
            if policy.response_timeout < policy.outcome_timeout {
                timeout_at(started + policy.response_timeout, told).await.ok()
            } else {
                Some(told.await)
            }
        };
        let told = patience.await;
        if let Some(account) = take(&slot) {
            *visit = account;
        }
        match told {
            Some(Ok(reply)) => reply,
            None => {
                let refusal = Refusal::new(Problem::StillRunning).owner_age(clock::now() - started);
                refused(refusal, &route.policy, Some(id))
            }
            // The task died: its record lapses into unknown.
            Some(Err(_)) => refused(Refusal::new(Problem::OutcomeUnknown), &route.policy, Some(id)),
        }
    }

    async fn run(self, errand: Errand, right: Right, started: Instant, slot: Slot, tell: oneshot::Sender<Reply>) {
        let reply = self.forward(errand, right, started, &slot).await;
        if let Err(reply) = tell.send(reply)
            && let Some(visit) = take(&slot)
        {
            // The client went away; the account is closed all the same. Nothing was refused, and nothing sent.
            let (mut visit, Reply { response, outcome, why, cause }) = (visit, reply);
            visit.why = why.or(Some("client-gone"));
            let response = response.map(|_unsent| Payload::empty());
            drop(finish(visit, Reply { response, outcome, why: None, cause }));
        }
    }

    /// Forwards, settles, and says what the client is to be told.
    async fn forward(&self, errand: Errand, right: Right, started: Instant, slot: &Slot) -> Reply {
        let Errand { live, route, id, keep, request, mut held } = errand;
        let (desk, policy) = (&self.shared.desk, &route.policy);
        let upstream = live.upstreams.get(route.upstream);
        let plan = Plan { guarded: true, idempotent: false, worker: self.worker };
        let fetching = async {
            tokio::select! {
                biased;
                fetched = timeout(policy.outcome_timeout, fetch(upstream, request, plan, &route, &mut held)) => {
                    fetched.unwrap_or(Fetched::Lost(Loss::TimedOut))
                }
                () = desk.drain_ended() => Fetched::Lost(Loss::Drained),
            }
        };
        let (fetched, right) = match right {
            Right::Claimed(mut claim) => (desk.tend(&mut claim, fetching).await, Right::Claimed(claim)),
            Right::Unguarded(claim) => (fetching.await, Right::Unguarded(claim)),
        };
        let took = clock::now() - started;
        live.upstream_metrics[route.upstream].took(took);
        if let Some(account) = slot.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            account.upstream_took = Some(took);
        }
        let (desk_after, until) = (Arc::clone(desk), started + policy.outcome_timeout);
        let (attempt, answer) = fetched.split(policy, move |mut rest| {
            let rest = async move { while let Some(Ok(_)) = rest.frame().await {} };
            desk_after.finish_without_client(until, rest);
        });
        let verdict = Settlement::of(&attempt, policy);
        let metrics = live.route_metrics.get(&route.name).unwrap_or(&live.nowhere);
        let outcome = match right {
            Right::Claimed(claim) => {
                let record = rule::settle(policy, claim.fingerprint(), attempt);
                let reason = unknown_reason(record.as_ref());
                let settled = desk.settle(claim, record).await;
                match (settled, &verdict, reason) {
                    (Settled::Fenced, ..) => metrics.fenced(),
                    // What waits for the store is known all the same (P-5, R-14).
                    (_, _, Some(reason)) => {
                        metrics.unknown(reason);
                        let then = match policy.on_unknown {
                            OnUnknown::Hold => "its key is held until it is resolved or its time is over",
                            OnUnknown::Retry => "its route runs it anew when it is repeated",
                        };
                        tracing::warn!(
                            record = %id.short(), route = %route.name, reason = reason.as_str(),
                            "nobody can say whether a request was executed; {then}"
                        );
                    }
                    (_, Settlement::Released(reason), None) => metrics.released(*reason),
                    (_, Settlement::Kept | Settlement::NotKept | Settlement::Unknown, None) => {}
                }
                match settled {
                    Settled::Done => verdict.outcome(keep),
                    Settled::NotKept => Outcome::NotKept,
                    Settled::Unsettled => Outcome::Unsettled,
                    Settled::Fenced => Outcome::Fenced,
                }
            }
            Right::Unguarded(claim) => {
                if let Some(claim) = claim {
                    let record = rule::settle(policy, claim.fingerprint(), attempt);
                    desk.settle_uncertain(claim, record);
                }
                Outcome::Unguarded
            }
        };
        // An answer that the store keeps and lends counts there.
        let lent = S::LENDS && matches!(outcome, Outcome::Executed { .. });
        drop(held);
        let answer = if lent { answer } else { answer.counted(self.shared.answers.hold()) };
        answer.reply(&route, id, outcome)
    }
}

/// One attempt: sends, and reads the answer until it is whole or must be let go.
async fn fetch(
    upstream: &Upstream,
    request: Request<RequestBody>,
    plan: Plan,
    route: &Route,
    held: &mut Held,
) -> Fetched {
    let policy = &route.policy;
    let method = request.method().clone();
    let response = match upstream.send(request, plan).await {
        Ok(response) => response,
        Err(SendError::NeverSent(unsent)) => return Fetched::NeverSent(unsent),
        Err(SendError::Lost(error)) => {
            trouble::failed(route, &error);
            return Fetched::Lost(Loss::Broken);
        }
    };
    let (mut head, mut rest) = response.into_parts();
    // Nobody asked for an upgrade: whatever speaks on that connection now, it is no answer.
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        tracing::warn!(route = %route.name, "the upstream switched protocols unasked");
        return Fetched::Lost(Loss::Broken);
    }
    headers::one_content_length(&mut head.headers);
    headers::remove_hop_by_hop_in_order(&mut head.headers);
    let limit = policy.max_response_body;
    let mut body = Vec::new();
    if headers::is_media_type(&head.headers, &policy.stream_types) || rest.size_hint().lower() > limit {
        return Fetched::LetGo { head, body, rest };
    }
    let (mut length, mut trailers) = (0, None);
    while let Some(frame) = rest.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                length += data.len() as u64;
                let fits = length <= limit && held.grow(data.len() as u64);
                body.push(data);
                if !fits {
                    return Fetched::LetGo { head, body, rest };
                }
            }
            Ok(Err(frame)) => {
                trailers = frame.into_trailers().ok();
                break;
            }
            Err(error) => {
                trouble::failed(route, &error);
                return Fetched::Lost(Loss::Broken);
            }
        }
    }
    if headers::misstates_length(&method, &head, length) {
        // Kept, it would be a broken answer to everybody who asks again.
        tracing::warn!(route = %route.name, "the upstream's answer has another length than it says");
        return Fetched::Lost(Loss::Broken);
    }
    Fetched::Whole { head, body, trailers }
}

/// What the client is told.
enum Told {
    Answer(Box<(response::Parts, Payload)>),
    NeverSent(Unsent),
    Lost(Loss),
}

impl Fetched {
    /// What the rule needs of it, and what the client is told.
    /// `take_over` reads what is left of an answer whose client went away.
    fn split(self, policy: &Policy, take_over: impl FnOnce(UpstreamBody) + Send + 'static) -> (Attempt<Stored>, Told) {
        match self {
            Self::Whole { head, body, trailers: None } => {
                let status = head.status.as_u16();
                let stored = Stored::keep(policy, status, &head.headers, &body);
                let answer = answered(&head, stored.clone());
                // The client is sent the stored allocation; hyper's buffers are free.
                let (_, kept) = stored.parts();
                (Attempt::Answered(answer), Told::Answer(Box::new((head, Payload::whole(kept)))))
            }
            Self::Whole { head, body, trailers: Some(trailers) } => {
                let answer = answered(&head, Stored::not_kept(head.status.as_u16(), &head.headers));
                let payload =
                    Payload::Stream { prefix: vec![join(body)].into_iter(), rest: Rest::Trailers(Some(trailers)) };
                (Attempt::Answered(answer), Told::Answer(Box::new((head, payload))))
            }
            Self::LetGo { head, body, rest } => {
                let answer = answered(&head, Stored::not_kept(head.status.as_u16(), &head.headers));
                let rest = Rest::Guarded(Guarded::new(rest, take_over));
                let payload = Payload::Stream { prefix: body.into_iter(), rest };
                (Attempt::Answered(answer), Told::Answer(Box::new((head, payload))))
            }
            Self::NeverSent(unsent) => (Attempt::NeverSent, Told::NeverSent(unsent)),
            Self::Lost(loss) => (Attempt::Lost(loss), Told::Lost(loss)),
        }
    }
}

fn answered(head: &response::Parts, response: Stored) -> Answer<Stored> {
    Answer { status: head.status.as_u16(), retry_after: head.headers.contains_key(http::header::RETRY_AFTER), response }
}

/// What a settlement that was written means for the client.
enum Settlement {
    Kept,
    NotKept,
    Released(Released),
    Unknown,
}

impl Settlement {
    fn of(attempt: &Attempt<Stored>, policy: &Policy) -> Self {
        match attempt {
            Attempt::NeverSent => Self::Released(Released::NotSent),
            Attempt::Lost(_) => Self::Unknown,
            Attempt::Answered(Answer { status, retry_after, response }) => {
                match rule::verdict(policy, *status, *retry_after) {
                    rule::Verdict::NotExecuted => Self::Released(Released::Status(*status)),
                    rule::Verdict::Unknown => Self::Unknown,
                    rule::Verdict::Executed if response.is_kept() => Self::Kept,
                    rule::Verdict::Executed => Self::NotKept,
                }
            }
        }
    }

    fn outcome(&self, keep: Keep) -> Outcome {
        match self {
            Self::Kept => Outcome::Executed { ttl: keep.completed },
            Self::NotKept => Outcome::NotKept,
            Self::Released(_) => Outcome::Released,
            Self::Unknown => Outcome::Unknown,
        }
    }
}

fn unknown_reason(record: Option<&Record<Stored>>) -> Option<rule::UnknownReason> {
    match record {
        Some(Record::Unknown { reason, .. }) => Some(*reason),
        Some(Record::InFlight { .. } | Record::Completed { .. }) | None => None,
    }
}

impl Told {
    /// What there is of an answer counts until the client has taken it, if there is room; it is given in any case.
    fn counted(self, held: Held) -> Self {
        match self {
            Self::Answer(answer) => {
                let (head, payload) = *answer;
                let (payload, _) = payload.counted(held);
                Self::Answer(Box::new((head, payload)))
            }
            Self::NeverSent(_) | Self::Lost(_) => self,
        }
    }

    fn reply(self, route: &Route, id: RecordId, outcome: Outcome) -> Reply {
        let mut reply = match self {
            Self::Answer(answer) => {
                let (head, payload) = *answer;
                let replayed = headers::upstream_replayed(&head.headers);
                let mut response = Response::from_parts(head, payload);
                let headers = response.headers_mut();
                headers::remove_in_order(headers, &[IDEMPOTENT_REPLAYED, IDEMPOTENCY_STATUS]);
                if let Some(field) = outcome.field(replayed) {
                    headers.insert(IDEMPOTENCY_STATUS, field);
                }
                return Reply { response, outcome, why: None, cause: None };
            }
            Self::NeverSent(unsent) => refused(unreachable(&unsent), &route.policy, Some(id)),
            Self::Lost(loss) => {
                let status = match loss {
                    Loss::Broken | Loss::Drained => StatusCode::BAD_GATEWAY,
                    Loss::TimedOut => StatusCode::GATEWAY_TIMEOUT,
                };
                let refusal = Refusal::new(Problem::OutcomeUnknown)
                    .status(status)
                    .runs_anew(route.policy.on_unknown == OnUnknown::Retry);
                refused(refusal, &route.policy, Some(id))
            }
        };
        // Fenced, unsettled, unguarded: what became of the record, where that is not what the problem says.
        if let (Some(field), false) = (outcome.field(false), matches!(outcome, Outcome::Executed { .. })) {
            reply.response.headers_mut().insert(IDEMPOTENCY_STATUS, field);
            reply.outcome = outcome;
        }
        reply
    }
}

/// The refusal of a request that was proven not to have been sent.
pub(super) fn unreachable(unsent: &Unsent) -> Refusal {
    trouble::unreachable(unsent);
    Refusal::new(if unsent.is_connect_timeout() {
        Problem::UpstreamConnectTimeout
    } else {
        Problem::UpstreamUnreachable
    })
}
