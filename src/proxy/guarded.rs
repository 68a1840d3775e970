//! A request that may be guarded: its key, its caller, its body, its record; then what the desk says.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};

use super::{
    Proxy, Reply, Visit, Visitor, authority,
    body::Payload,
    client_body::{ClientBody, NotWhole, Whole, discard, read_whole},
    exchange::{Errand, Right},
    headers::{IDEMPOTENCY_STATUS, IDEMPOTENT_REPLAYED, upgrade},
    pass::request_for,
    refusal::Refusal,
    refused,
};
use crate::{
    body::{BodyError, RequestBody},
    desk::{self, BoardError, Boarding, Booking, Keep},
    rule::{
        Fingerprint, Outcome, RecordId,
        fingerprint::fingerprint,
        identity::{self, ScopeError, ScopeValues, Space},
        key::{self, Key, Search},
        policy::{AuthorityMatch, OnBodyTooLarge, OnDuplicate, OnStoreDown, OnUnknown, Policy},
        problem::{Executed, Problem},
    },
    server,
    store::{Store, StoreError},
    telemetry::metrics::{Prevented, Unguarded},
};

/// How much of a body is read for the sake of a refusal, bytes: beyond, the connection closes after it.
const DISCARD: u64 = 64 << 10;

/// A guarded request, ready for the desk.
struct Guarded {
    id: RecordId,
    fingerprint: Fingerprint,
    /// The window of a key made of the content.
    content: Option<Duration>,
    body: Whole,
}

/// Why a request with a key does not come to the desk.
pub(super) enum Early {
    Refuse(Box<Refusal>),
    Pass(Unguarded),
}

/// What the way to the desk may end in.
enum Way {
    Guarded(Box<Guarded>),
    Pass(RequestBody, Option<Unguarded>),
    Refused(Box<Reply>),
}

impl Way {
    fn refused(reply: Reply) -> Self {
        Self::Refused(Box::new(reply))
    }
}

impl<S: Store> Proxy<S> {
    /// Guards a request of a method that its route guards.
    pub(super) async fn guard(&self, visitor: Visitor, body: ClientBody, visit: &mut Visit) -> Reply {
        match self.prepare(&visitor, body, visit).await {
            Way::Guarded(guarded) => self.bring(visitor, *guarded, visit).await,
            Way::Pass(body, unguarded) => Box::pin(self.pass(visitor, body, visit, unguarded)).await,
            Way::Refused(reply) => *reply,
        }
    }

    /// Finds key, scope and body, in this order; nothing is asked of the store yet.
    async fn prepare(&self, visitor: &Visitor, body: ClientBody, visit: &mut Visit) -> Way {
        let (policy, head) = (&visitor.route.policy, visitor.rule_head());
        let refuse = |refusal: Refusal| refused(refusal, &visitor.route.policy, None);
        if let Some(shadow) = key::shadowed(policy, head.headers) {
            let detail = format!("The request is ambiguous ({}); nothing was sent on.", shadow.why());
            return Way::refused(
                unread(visitor, body, refuse(Refusal::new(Problem::BadRequest).detail(detail).because(shadow.why())))
                    .await,
            );
        }
        let held = self.shared.buffered.hold();
        let found = match key::search(policy, &head) {
            Err(error) => return Way::refused(unread(visitor, body, refuse(malformed(&error))).await),
            Ok(Search::Absent) if policy.key_required => {
                return Way::refused(unread(visitor, body, refuse(Refusal::new(Problem::KeyMissing))).await);
            }
            Ok(Search::Absent) => return Way::Pass(RequestBody::stream(body), None),
            // What can be refused without the body is refused before it is read.
            Ok(Search::Found(key)) => match admissible(visitor) {
                Ok(scope) => Some((key, scope)),
                Err(Early::Refuse(refusal)) => {
                    return Way::refused(unread(visitor, body, refuse(*refusal)).await);
                }
                Err(Early::Pass(why)) => return Way::Pass(RequestBody::stream(body), Some(why)),
            },
            Ok(Search::NeedsBody) => None,
        };
        let whole = match read_whole(body.hurried(), policy.max_request_body, held).await {
            Ok(whole) => whole,
            Err(NotWhole::TooLarge(prefixed)) => {
                let has_key = found.is_some()
                    || match key::search_past_body(policy, &head) {
                        Ok(key) => key.is_some(),
                        Err(error) => return Way::refused(closing(refuse(malformed(&error)))),
                    };
                return match policy.on_body_too_large {
                    _ if !has_key && !policy.key_required => Way::Pass(RequestBody::stream(prefixed), None),
                    OnBodyTooLarge::Pass if has_key => {
                        Way::Pass(RequestBody::stream(prefixed), Some(Unguarded::BodyTooLarge))
                    }
                    OnBodyTooLarge::Pass | OnBodyTooLarge::Reject => {
                        Way::refused(refuse_not_whole(visitor, NotWhole::TooLarge(prefixed)))
                    }
                };
            }
            Err(not_whole) => return Way::refused(refuse_not_whole(visitor, not_whole)),
        };
        visit.bytes_in = whole.bytes.len() as u64;
        let (key, scope) = match found {
            Some(found) => found,
            None => match key::search_body(policy, &head, &whole.bytes, &self.shared.id_key) {
                Err(error) => return Way::refused(refuse(malformed(&error))),
                Ok(None) if policy.key_required => return Way::refused(refuse(Refusal::new(Problem::KeyMissing))),
                Ok(None) => return Way::Pass(RequestBody::full(whole.bytes), None),
                Ok(Some(key)) => match admissible(visitor) {
                    Ok(scope) => (key, scope),
                    Err(Early::Refuse(refusal)) => return Way::refused(refuse(*refusal)),
                    Err(Early::Pass(why)) => return Way::Pass(RequestBody::full(whole.bytes), Some(why)),
                },
            },
        };
        let id = self.record_id(visitor, Space::Enforce, &scope, &key);
        let fingerprint = fingerprint(&self.shared.id_key, policy, &head, &whole.bytes);
        let content = key.content;
        Way::Guarded(Box::new(Guarded { id, fingerprint, content, body: whole }))
    }

    /// Brings a guarded request to the desk, and does what the desk says.
    async fn bring(&self, visitor: Visitor, guarded: Guarded, visit: &mut Visit) -> Reply {
        let Guarded { id, fingerprint, content, body } = guarded;
        let route = Arc::clone(&visitor.route);
        let policy = &route.policy;
        visit.record(&id);
        let keep = Keep::of(policy, content);
        let booking = Booking { id: &id, fingerprint, policy, route: &route.name, keep, observed: false };
        let refuse = |problem| refused(Refusal::new(problem), &route.policy, Some(id));
        let prevented = |how| visit.metrics.prevented(how);
        match self.shared.desk.board(booking).await {
            Ok(Boarding::Claimed(claim)) => {
                let errand = Errand::new(visitor, body, id, keep);
                self.exchange(errand, Right::Claimed(claim), visit).await
            }
            Ok(Boarding::Replay(replay)) => {
                drop(body);
                // Those who waited share what one look found.
                let copied = !S::LENDS && !replay.waited;
                let how = match policy.on_duplicate {
                    OnDuplicate::Reject => Prevented::Rejected,
                    OnDuplicate::Replay | OnDuplicate::Ack if replay.waited => Prevented::Waited,
                    OnDuplicate::Replay | OnDuplicate::Ack => Prevented::Replayed,
                };
                prevented(how);
                let reply = answer_again(policy, &visitor, id, replay, content.is_some());
                if !copied {
                    return reply;
                }
                let (head, payload) = reply.response.into_parts();
                let (payload, has_room) = payload.counted(self.shared.answers.hold());
                if !has_room {
                    return refused(untaken(), &route.policy, Some(id));
                }
                Reply { response: Response::from_parts(head, payload), ..reply }
            }
            Ok(Boarding::InFlight { running }) => {
                prevented(Prevented::Rejected);
                refused(Refusal::new(Problem::InFlight).owner_age(running), &route.policy, Some(id))
            }
            Ok(Boarding::Mismatch) => refuse(Problem::KeyReused),
            Ok(Boarding::Unknown) => {
                prevented(Prevented::Held);
                let refusal = Refusal::new(Problem::OutcomeUnknown)
                    .status(StatusCode::CONFLICT)
                    .runs_anew(policy.on_unknown == OnUnknown::Retry);
                refused(refusal, &route.policy, Some(id))
            }
            Ok(Boarding::Overloaded) => refuse(Problem::Overloaded),
            Ok(Boarding::Draining) => refuse(Problem::Draining),
            Err(BoardError::Full) => refuse(Problem::StoreFull),
            // S-6: there is a record, and nobody can read it. Whatever the route says of a store that is down, its request
            // may have been executed.
            Err(BoardError::Unavailable(StoreError::Damaged(_))) => refused(unreadable(), &route.policy, Some(id)),
            Err(BoardError::Unavailable(error)) => {
                tracing::debug!(record = %id.short(), %error, "the store could not be asked");
                self.without_store(Errand::new(visitor, body, id, keep), None, visit).await
            }
            Err(BoardError::Uncertain { error, claim }) => {
                tracing::warn!(record = %id.short(), %error, "a claim's fate is uncertain");
                self.without_store(Errand::new(visitor, body, id, keep), Some(*claim), visit).await
            }
        }
    }

    /// `on_store_down`: refuse, and take back a claim that may exist; or forward unguarded, and settle it.
    async fn without_store(&self, errand: Errand, claim: Option<desk::Claim>, visit: &mut Visit) -> Reply {
        // This process needs no store to know that the request is under way, or was executed.
        let has_owner = claim.is_none() && self.shared.desk.has_owner(&errand.id);
        match errand.policy().on_store_down {
            OnStoreDown::Reject if has_owner => refused(outstanding(), &errand.route().policy, Some(errand.id)),
            OnStoreDown::Reject => {
                if let Some(claim) = claim {
                    self.shared.desk.withdraw(claim);
                }
                refused(Refusal::new(Problem::StoreUnavailable), &errand.route().policy, Some(errand.id))
            }
            OnStoreDown::Forward if has_owner => {
                visit.metrics.prevented(Prevented::Rejected);
                let refusal = Refusal::new(Problem::InFlight).owner_age(Duration::ZERO);
                refused(refusal, &errand.route().policy, Some(errand.id))
            }
            OnStoreDown::Forward => {
                visit.metrics.unguarded(Unguarded::StoreDown);
                tracing::warn!(route = %errand.route().name, record = %errand.id.short(),
                    "the store is down; a request is forwarded unguarded");
                self.exchange(errand, Right::Unguarded(claim), visit).await
            }
        }
    }

    /// The id of a request's record.
    pub(super) fn record_id(
        &self,
        visitor: &Visitor,
        space: Space,
        scope: &ScopeValues<'_>,
        key: &Key<'_>,
    ) -> RecordId {
        let host = authority(&visitor.head);
        let authority = match visitor.route.policy.authority {
            AuthorityMatch::Match => Some(identity::authority(host, visitor.connection.tls)),
            AuthorityMatch::Ignore => None,
        };
        identity::record_id(&self.shared.id_key, space, authority.as_deref(), scope, &visitor.route.id, key)
    }
}

/// What is asked of a request once it is known to have a key, before its body matters; whose it is.
pub(super) fn admissible(visitor: &Visitor) -> Result<ScopeValues<'_>, Early> {
    let (policy, head) = (&visitor.route.policy, visitor.rule_head());
    if upgrade(visitor.head.version, &visitor.head.headers).is_some() {
        let refusal = Refusal::new(Problem::BadRequest)
            .detail("A request with an idempotency key cannot be upgraded to another protocol; nothing was sent on.")
            .because("an upgrade with a key");
        return Err(Early::Refuse(Box::new(refusal)));
    }
    // 1 is its only value, and whatever else it says is to be taken for that (RFC 8470 s5.1).
    if head.headers.contains_key("early-data") {
        return Err(Early::Refuse(Box::new(Refusal::new(Problem::TooEarly))));
    }
    identity::scope(policy, &head).map_err(|error| {
        let passes = error == ScopeError::Unstable && !policy.key_required;
        if passes { Early::Pass(Unguarded::ScopeUnstable) } else { Early::Refuse(Box::new(nameless(&error))) }
    })
}

/// What a request gets whose record is completed.
fn answer_again(policy: &Policy, visitor: &Visitor, id: RecordId, replay: desk::Replay, by_content: bool) -> Reply {
    let desk::Replay { stored, age, left, waited } = replay;
    let original = StatusCode::from_u16(stored.status()).expect("checked when it was stored");
    let outcome = Outcome::Replayed { age, ttl: left, waited, content: by_content };
    match policy.on_duplicate {
        OnDuplicate::Reject => refused(Refusal::new(Problem::Duplicate), &visitor.route.policy, Some(id)),
        OnDuplicate::Replay if stored.is_kept() => {
            let (mut headers, body) = stored.parts();
            if !headers.contains_key(header::CACHE_CONTROL) {
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            let mut response = Response::new(Payload::whole(body));
            *response.status_mut() = original;
            *response.headers_mut() = headers;
            again(response, outcome)
        }
        OnDuplicate::Replay => {
            let location = stored.parts().0.remove(header::LOCATION);
            let refusal = Refusal::new(Problem::ResponseNotKept).original(stored.status(), location);
            refused(refusal, &visitor.route.policy, Some(id))
        }
        OnDuplicate::Ack => {
            let mut response = Response::new(Payload::empty());
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            if stored.is_kept() {
                return again(response, outcome);
            }
            *response.status_mut() = original;
            again(response, Outcome::NotKept)
        }
    }
}

fn again(mut response: Response<Payload>, outcome: Outcome) -> Reply {
    let headers = response.headers_mut();
    if let Some(field) = outcome.field(false) {
        headers.insert(IDEMPOTENCY_STATUS, field);
    }
    if matches!(outcome, Outcome::Replayed { .. }) {
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Reply { response, outcome, why: None, cause: None }
}

/// There is an answer, and no room to hold it for a client that may not take it.
fn untaken() -> Refusal {
    Refusal::new(Problem::Overloaded).executed(Executed::Yes).detail(
        "The request was executed; too many answers wait for their clients to take this one, too. Repeat it with the same \
         key, and never with a new one.",
    )
}

/// The store cannot be asked, and this process has the first try under way, or its outcome.
fn outstanding() -> Refusal {
    Refusal::new(Problem::StoreUnavailable).executed(Executed::Maybe).because("its first try is under way").detail(
        "The first request with this idempotency key is under way or was executed, and its answer cannot be had while the \
         idempotency store is away; repeat with the same key later, never with a new one.",
    )
}

/// There is a record, and nobody knows what it says.
fn unreadable() -> Refusal {
    Refusal::new(Problem::StoreUnavailable).executed(Executed::Maybe).because("its record cannot be read").detail(
        "The record of this idempotency key cannot be read, so the request may have been executed before; this try was not \
         sent on. Find out before you send it with a new key.",
    )
}

fn malformed(error: &key::KeyError) -> Refusal {
    let key::KeyError::Malformed(why) = error;
    Refusal::new(Problem::KeyMalformed).because(why).detail(format!(
        "The idempotency key is malformed ({error}); nothing was sent on, and the request is safe to send with a well-formed key."
    ))
}

fn nameless(error: &ScopeError) -> Refusal {
    match error {
        ScopeError::Missing => Refusal::new(Problem::ScopeMissing),
        ScopeError::Unstable => Refusal::new(Problem::ScopeUnstable),
        ScopeError::Malformed(why) => Refusal::new(Problem::BadRequest)
            .detail(format!("The request does not say unambiguously who sends it ({why}); nothing was sent on."))
            .because(why),
    }
}

/// Why a guarded request's body was not had. The connection closes: its rest was not read.
fn refuse_not_whole<B>(visitor: &Visitor, not_whole: NotWhole<B>) -> Reply {
    let refusal = match not_whole {
        NotWhole::TooLarge(_) => Refusal::new(Problem::BodyTooLarge).detail(format!(
            "The request body is longer than the {} bytes that this route accepts; nothing was sent on.",
            visitor.route.policy.max_request_body
        )),
        NotWhole::Overloaded => Refusal::new(Problem::Overloaded),
        NotWhole::Trailers => Refusal::new(Problem::BadRequest)
            .detail("A request with an idempotency key cannot have trailers; nothing was sent on.")
            .because("trailers with a key"),
        NotWhole::Failed(error) => broken_body(&error, false),
    };
    closing(refused(refusal, &visitor.route.policy, None))
}

/// A request body that broke off, stalled or was badly framed. `begun`: some of it had been sent on.
pub(super) fn broken_body(error: &BodyError, begun: bool) -> Refusal {
    let refusal = Refusal::new(Problem::BadRequest);
    let (refusal, what) = match (error, server::Refusal::of(error)) {
        (_, Some(framing)) => {
            let refusal = refusal.status(framing.status).reason(framing.reason.as_str()).detail(framing.detail);
            (refusal, framing.detail.trim_end_matches('.'))
        }
        (BodyError::Silent, None) => {
            let refusal = refusal.status(StatusCode::REQUEST_TIMEOUT).reason("body-timeout");
            (
                refusal.detail("The request body stopped arriving; it was not sent on."),
                "The request body stopped arriving",
            )
        }
        (BodyError::Slow, None) => {
            let refusal = refusal.status(StatusCode::REQUEST_TIMEOUT).reason("body-timeout");
            let detail = "The request body arrived too slowly; it was not sent on.";
            (refusal.detail(detail), "The request body arrived too slowly")
        }
        (BodyError::Incomplete(_) | BodyError::Malformed(_) | BodyError::Upstream(_), None) => {
            let refusal = refusal.reason("body-incomplete");
            let detail = "The request body did not arrive whole; it was not sent on.";
            (refusal.detail(detail), "The request body did not arrive whole")
        }
    };
    if begun { refusal.begun().detail(format!("{what}; its beginning had been sent on.")) } else { refusal }
}

/// Reads what is left of the body, so that the connection can go on; or closes it after the answer.
async fn unread(visitor: &Visitor, body: ClientBody, reply: Reply) -> Reply {
    // Reading would ask a client for the body that it holds back.
    let held_back = visitor.head.headers.contains_key(header::EXPECT);
    if !held_back && discard(body.hurried(), DISCARD).await { reply } else { closing(reply) }
}

fn closing(mut reply: Reply) -> Reply {
    reply.response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

impl Errand {
    fn new(visitor: Visitor, body: Whole, id: RecordId, keep: Keep) -> Self {
        let Whole { bytes, held } = body;
        let (live, route) = (Arc::clone(&visitor.live), Arc::clone(&visitor.route));
        let request = request_for(visitor, RequestBody::full(bytes));
        Self { live, route, id, keep, request, held }
    }
}
