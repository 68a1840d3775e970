//! The path of a request: find its route, classify, pass or guard. One function, top to bottom.
//!
//! What may happen to a guarded request is decided by [`crate::rule`]; the [`crate::desk`] brings it to its key; here
//! bytes are carried from one to the other. The exchange with the upstream is detached from the client (`exchange`).

mod body;
mod client_body;
mod exchange;
mod guarded;
pub(crate) mod headers;
mod observe;
mod pass;
mod refusal;
pub mod routes;
mod trouble;
mod tunnel;
mod visit;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header, request};

pub use self::body::ResponseBody;
use self::{
    body::Payload,
    client_body::ClientBody,
    refusal::Refusal,
    routes::Routes,
    visit::{Account, Visit},
};
use crate::{
    body::RequestBody,
    clock,
    config::{Config, NO_ROUTE, settled::Route},
    desk::{Budget, Desk, Gauge},
    rule::{Outcome, Policy, RecordId, RouteName, head::Head, identity::IdKey, method, policy::Mode, problem::Problem},
    server::{Arriving, Connection, Handler, Interim, TurnedAway, forwarded},
    store::Store,
    telemetry::{
        log::Log,
        metrics::{Metrics, RouteMetrics, Unguarded, UpstreamMetrics},
    },
    upstream::Upstreams,
};

/// What every worker thread shares.
#[derive(Debug)]
pub struct Shared<S> {
    /// Brings requests to their keys.
    pub desk: Arc<Desk<S>>,
    /// What a reload replaces.
    pub live: ArcSwap<Live>,
    /// Keys the record ids.
    pub id_key: IdKey,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Tells.
    pub log: Arc<Log>,
    /// `max_buffered`, of bodies and answers of exchanges under way.
    pub buffered: Arc<Budget>,
    /// The same again, of answers that their clients have yet to take: slow ones must not keep others from being executed,
    /// nor others' answers from being kept.
    pub answers: Arc<Budget>,
    /// Requests that are observed at a time.
    pub observing: Arc<Gauge>,
}

/// What follows from one configuration. Requests under way keep the one they started with.
#[derive(Debug)]
pub struct Live {
    config: Arc<Config>,
    routes: Routes,
    upstreams: Upstreams,
    route_metrics: HashMap<RouteName, Arc<RouteMetrics>>,
    upstream_metrics: Vec<Arc<UpstreamMetrics>>,
    nowhere: Arc<RouteMetrics>,
}

impl Live {
    /// Makes every metric of the configuration's routes and upstreams, so that all series exist from the start.
    #[must_use]
    pub fn new(config: Arc<Config>, upstreams: Upstreams, metrics: &Metrics) -> Self {
        let named = config.routes.iter().chain(&config.fallback);
        let nowhere = metrics.route(&RouteName(NO_ROUTE.into()), &Policy::default());
        TurnedAway::ALL.iter().for_each(|why| nowhere.may_refuse(why.as_str()));
        Self {
            routes: Routes::new(&config),
            upstreams,
            route_metrics: named.map(|route| (route.name.clone(), metrics.route(&route.name, &route.policy))).collect(),
            upstream_metrics: config.upstreams.iter().map(|upstream| metrics.upstream(&upstream.name)).collect(),
            nowhere,
            config,
        }
    }

    /// The configuration this follows from.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The upstreams' pools.
    #[must_use]
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }
}

/// Answers the requests of one worker thread.
#[derive(Debug)]
pub struct Proxy<S> {
    shared: Arc<Shared<S>>,
    worker: usize,
}

impl<S> Clone for Proxy<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), worker: self.worker }
    }
}

/// How a request was answered.
#[derive(Debug)]
struct Reply {
    response: Response<Payload>,
    outcome: Outcome,
    why: Option<&'static str>,
    /// What was wrong with the request, where `why` is too general.
    cause: Option<&'static str>,
}

/// A request with what was found out about it on the way.
struct Visitor {
    live: Arc<Live>,
    route: Arc<Route>,
    connection: Arc<Connection>,
    /// Takes interim answers to the client.
    interim: Option<Interim>,
    head: request::Parts,
}

impl Visitor {
    /// What the rule reads of the head.
    fn rule_head(&self) -> Head<'_> {
        Head {
            method: &self.head.method,
            path: self.head.uri.path(),
            query: self.head.uri.query(),
            headers: &self.head.headers,
            tls_subject: self.connection.tls_subject.as_deref(),
        }
    }
}

impl<S: Store> Proxy<S> {
    /// The proxy of worker thread `worker`.
    #[must_use]
    pub fn new(shared: Arc<Shared<S>>, worker: usize) -> Self {
        Self { shared, worker }
    }

    /// The whole way of a request.
    async fn answer(&self, visitor: Visitor, body: Arriving, visit: &mut Visit) -> Reply {
        let policy = &visitor.route.policy;
        let body = ClientBody::new(body, visitor.live.config.server.body_timeout);
        let guards = policy.mode != Mode::Off && method::guards(policy, &visitor.head.method);
        let grpc = guards && is_grpc(&visitor.head.headers);
        if grpc {
            visit.metrics.unguarded(Unguarded::Grpc);
        }
        // Boxed, so that a request that passes does not carry room for them: the server moves this future about.
        match policy.mode {
            Mode::Enforce if guards && !grpc => Box::pin(self.guard(visitor, body, visit)).await,
            Mode::Observe if guards && !grpc => Box::pin(self.observe(visitor, body, visit)).await,
            Mode::Enforce | Mode::Observe | Mode::Off => {
                self.pass(visitor, RequestBody::stream(body), visit, None).await
            }
        }
    }

    fn open(&self, live: &Live, route: Option<&Route>, head: &request::Parts, connection: &Connection) -> Visit {
        let (name, metrics) = match route {
            Some(route) => (route.name.clone(), live.route_metrics.get(&route.name).unwrap_or(&live.nowhere)),
            None => (RouteName(NO_ROUTE.into()), &live.nowhere),
        };
        Visit::open(Account {
            log: Arc::clone(&self.shared.log),
            metrics: Arc::clone(metrics),
            route: name,
            client: forwarded::client(connection.peer, &live.config.server.trusted_proxies, &head.headers),
            method: head.method.clone(),
            uri: head.uri.clone(),
            class: method::classify(&head.method),
            started: clock::now(),
            traceparent: head.headers.get("traceparent").cloned(),
            record: None,
            upstream_took: None,
            bytes_in: 0,
            bytes_out: 0,
            status: 0,
            outcome: Outcome::Failed,
            why: None,
            cause: None,
            observer: None,
        })
    }
}

impl<S: Store> Handler for Proxy<S> {
    type Body = ResponseBody;

    async fn handle(
        &self,
        request: Request<Arriving>,
        connection: Arc<Connection>,
        interim: Option<Interim>,
    ) -> Response<ResponseBody> {
        let live = self.shared.live.load_full();
        let (mut head, body) = request.into_parts();
        if head.version == Version::HTTP_2 {
            // Before anything is read of them: a caller is the same in either protocol.
            headers::join_cookies(&mut head.headers);
        }
        let host = authority(&head);
        let route = live.routes.find(host, head.uri.path(), &head.method).cloned();
        let mut visit = self.open(&live, route.as_deref(), &head, &connection);
        if head.method == Method::CONNECT {
            let refusal = Refusal::new(Problem::BadRequest)
                .status(StatusCode::METHOD_NOT_ALLOWED)
                .reason("method-connect")
                .detail("This proxy makes no tunnels: CONNECT is refused, and nothing was sent on.");
            let policy = route.as_deref().map_or(&live.config.defaults, |route| &route.policy);
            return finish(visit, refused(refusal, policy, None));
        }
        let Some(route) = route else {
            return finish(visit, refused(Refusal::new(Problem::NoRoute), &live.config.defaults, None));
        };
        let visitor = Visitor { live, route, connection, interim, head };
        let reply = self.answer(visitor, body, &mut visit).await;
        finish(visit, reply)
    }

    async fn refuse(&self, refusal: crate::server::Refusal, connection: Arc<Connection>) -> Response<ResponseBody> {
        let live = self.shared.live.load_full();
        // Its head could not be read: neither method nor path is known.
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::from_bytes(b"-").expect("a hyphen is a token");
        head.uri = Uri::from_static("*");
        let visit = self.open(&live, None, &head, &connection);
        let refusal = Refusal::new(Problem::BadRequest)
            .status(refusal.status)
            .reason(refusal.reason.as_str())
            .detail(refusal.detail);
        finish(visit, refused(refusal, &live.config.defaults, None))
    }

    fn turned_away(&self, why: TurnedAway) {
        self.shared.live.load().nowhere.refused(why.as_str());
    }
}

/// A refusal as a reply, as that policy has refusals look.
fn refused(refusal: Refusal, policy: &Policy, record: Option<RecordId>) -> Reply {
    let refusal = match record {
        Some(id) => refusal.record(id),
        None => refusal,
    };
    let (outcome, why, cause) = (refusal.outcome(), refusal.reason, refusal.cause);
    Reply { response: refusal.render(policy), outcome, why: Some(why), cause }
}

/// Closes the account of a whole answer at once; that of a stream when it ends.
fn finish(mut visit: Visit, reply: Reply) -> Response<ResponseBody> {
    let Reply { response, outcome, why, cause } = reply;
    visit.status = response.status().as_u16();
    visit.outcome = outcome;
    visit.cause = cause;
    if let Some(why) = why {
        visit.why = Some(why);
        visit.metrics.refused(why);
    }
    let (mut head, payload) = response.into_parts();
    headers::add_via(&mut head.headers, head.version);
    // Ours, whatever the upstream speaks (RFC 9110 s2.5): its own could promise less than is kept.
    head.version = Version::HTTP_11;
    let body = match payload {
        Payload::Whole(bytes) => {
            visit.bytes_out = bytes.as_ref().map_or(0, bytes::Bytes::len) as u64;
            drop(visit);
            ResponseBody::new(Payload::Whole(bytes), None)
        }
        stream @ Payload::Stream { .. } => ResponseBody::new(stream, Some(visit)),
    };
    Response::from_parts(head, body)
}

/// The one authority of a request: the guard has seen that target and Host agree.
fn authority(head: &request::Parts) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers::media_type(headers)
        .is_some_and(|found| found.get(..16).is_some_and(|begin| begin.eq_ignore_ascii_case("application/grpc")))
}
