//! Upstreams: connections to the services behind us, and whether a request was sent.
//!
//! [`Upstream::send`] makes one attempt and tells from evidence, never from a guess, what an attempt without an answer
//! was: [`SendError::NeverSent`] is proven, anything else is [`SendError::Lost`] (contract: R-11). Three things are the
//! proof: no connection could be had; not one byte was handed to the kernel since the request was dispatched; HTTP/2
//! said that the stream was not processed.
//!
//! | module | holds |
//! | --- | --- |
//! | `connect`, `tls` | from an url to a connected wire |
//! | `evidence` | the bytes that a socket took |
//! | `screen` | which answers are not trusted |
//! | `connection` | HTTP/1.1 and HTTP/2 connections and their drivers |
//! | `pool` | who may use which connection, and the limit |
//! | `balance` | which of several urls is asked |
//! | `body` | bodies on their way, which give connections back |
//! | `uploads` | how many of them may still be arriving |
//! | `stalled` | answers that their clients do not take |
//!
//! *Architecture invariant:* a request goes to a connection once. It goes to another only if nothing was dispatched, or
//! if it is idempotent, unguarded, and met a used connection that broke before it said anything (contract: P-6).

mod balance;
mod body;
mod connect;
mod connection;
mod error;
mod evidence;
mod pool;
mod screen;
mod stalled;
mod tls;
mod uploads;
mod wire;

use std::{error::Error, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request, uri,
};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::timeout;

use self::{
    balance::{Balance, Endpoint},
    body::{Lease, Outgoing, RequestBodyAgain},
    connection::{Exclusive, Home, Multiplexed, Stream},
    pool::{Grant, Pool, Want},
    tls::Tls,
    uploads::Uploads,
};
pub use self::{
    body::UpstreamBody,
    error::{AnswerBroken, LostHow, SendError, StartError, Unsent},
};
use crate::{body::RequestBody, config::settled};

/// All upstreams, shared by all workers.
#[derive(Debug)]
pub struct Upstreams {
    upstreams: Vec<Arc<Upstream>>,
    workers: usize,
}

impl Upstreams {
    /// Prepares the upstreams for as many workers; opens no connection.
    ///
    /// # Errors
    ///
    /// When a file of an upstream's `tls` cannot be used.
    pub fn new(upstreams: &[Arc<settled::Upstream>], workers: usize) -> Result<Self, StartError> {
        let upstreams = upstreams.iter().map(|upstream| Upstream::new(Arc::clone(upstream), workers).map(Arc::new));
        Ok(Self { upstreams: upstreams.collect::<Result<_, _>>()?, workers })
    }

    /// The upstreams of a reloaded configuration. Those whose settings are the same keep their connections, and read
    /// their certificates anew.
    ///
    /// # Errors
    ///
    /// When a file of an upstream's `tls` cannot be used; then nothing has changed.
    pub fn reloaded(&self, upstreams: &[Arc<settled::Upstream>]) -> Result<Self, StartError> {
        let mut renewed = Vec::new();
        let mut next = Vec::with_capacity(upstreams.len());
        for settings in upstreams {
            match self.upstreams.iter().find(|old| old.settings == *settings) {
                Some(same) => {
                    renewed.push((Arc::clone(same), Tls::load(settings)?.map(Arc::new)));
                    next.push(Arc::clone(same));
                }
                None => next.push(Arc::new(Upstream::new(Arc::clone(settings), self.workers)?)),
            }
        }
        for (upstream, tls) in renewed {
            upstream.tls.store(tls);
        }
        Ok(Self { upstreams: next, workers: self.workers })
    }

    /// The upstream at this index of the configuration.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> &Upstream {
        &self.upstreams[index]
    }

    /// Open connections to all of them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.upstreams.iter().map(|upstream| upstream.connections()).sum()
    }
}

/// What kind of request is sent.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// It is deduplicated: it is dispatched once, and never over a connection that was idle for `max_idle_guarded`.
    pub guarded: bool,
    /// Its method is idempotent (RFC 9110 s9.2.2): unguarded, it may be sent once more when it met a stale connection.
    pub idempotent: bool,
    /// The worker that it runs on, counted from 0.
    pub worker: usize,
}

/// One service behind us.
#[derive(Debug)]
pub struct Upstream {
    settings: Arc<settled::Upstream>,
    pool: Arc<Pool>,
    uploads: Uploads,
    balance: Balance,
    /// Replaced on reload: new connections show the new certificate.
    tls: ArcSwapOption<Tls>,
}

/// A failed try, and the request where nothing of it was dispatched.
struct Failed {
    error: SendError,
    request: Option<Request<Outgoing>>,
}

/// How an exchange over one connection failed.
enum Broken {
    /// Nothing was dispatched; here is the request.
    Returned(Box<Request<Outgoing>>, hyper::Error),
    /// Dispatched, and proven unsent.
    Unsent(Unsent),
    /// Dispatched. `unheard`: it broke before a byte came back.
    Lost { error: hyper::Error, unheard: bool },
}

enum Connection {
    Exclusive(Exclusive),
    Stream(Stream),
}

impl Upstream {
    fn new(settings: Arc<settled::Upstream>, workers: usize) -> Result<Self, StartError> {
        let tls = ArcSwapOption::new(Tls::load(&settings)?.map(Arc::new));
        let pool = Arc::new(Pool::new(workers, settings.max_connections, settings.queue_timeout));
        let uploads = Uploads::new(settings.max_connections, settings.queue_timeout);
        Ok(Self { balance: Balance::new(settings.urls.len()), settings, pool, uploads, tls })
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.pool.open()
    }

    /// The authority of its first url, for `host = "upstream"`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.settings.urls[0].authority
    }

    /// Makes one attempt, to the answer's head.
    ///
    /// The request has its hop-by-hop fields removed, a Host, and a target in origin form or `*`. Its extensions reach
    /// hyper as they are. An answer to an upgrade has hyper's `OnUpgrade` among its extensions.
    ///
    /// # Errors
    ///
    /// [`SendError::NeverSent`] is proven; [`SendError::Lost`] is everything else.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection (HTTP/2: resets the stream). Whether the request was sent is then
    /// unknown. It must be polled within the runtime of its worker, which drives the connections it opens.
    pub async fn send(&self, request: Request<RequestBody>, plan: Plan) -> Result<Response<UpstreamBody>, SendError> {
        let (head, mut body) = request.into_parts();
        if !self.settings.http2 {
            body = self.uploads.admit(body).await.map_err(SendError::NeverSent)?;
        }
        let mut request = Request::from_parts(head, Outgoing::new(body));
        let mut tried = Vec::new();
        let mut endpoint = self.balance.choose(&tried).unwrap_or(0);
        loop {
            match self.send_to(endpoint, request, plan).await {
                Ok(response) => return Ok(response),
                Err(Failed { error, request: unsent }) => {
                    tried.push(endpoint);
                    match (unsent, self.balance.choose(&tried)) {
                        (Some(again), Some(next)) => (request, endpoint) = (again, next),
                        (Some(_) | None, _) => return Err(error),
                    }
                }
            }
        }
    }

    async fn send_to(
        &self,
        endpoint: usize,
        mut request: Request<Outgoing>,
        plan: Plan,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let state = self.balance.endpoint(endpoint);
        let load = state.begin();
        let mut fresh = false;
        loop {
            let connection = match self.connection(endpoint, state, plan, fresh).await {
                Ok(connection) => connection,
                Err(unsent) => {
                    // Of a full pool another url would be no better: the limit is the upstream's.
                    let elsewhere = !matches!(unsent, Unsent::QueueTimeout);
                    if elsewhere {
                        state.failed();
                    }
                    return Err(Failed { error: SendError::NeverSent(unsent), request: elsewhere.then_some(request) });
                }
            };
            let reused = connection.is_reused();
            let again = (reused && plan.idempotent && !plan.guarded).then(|| Again::of(&mut request));
            match connection.exchange(request, &self.settings.urls[endpoint]).await {
                Ok((response, connection)) => {
                    state.answered();
                    return Ok(response.map(|body| {
                        let lease = match connection {
                            Some(Connection::Exclusive(it)) => Some(Lease::Exclusive(it, Arc::clone(&self.pool), load)),
                            Some(Connection::Stream(it)) => Some(Lease::Stream(it, load)),
                            None => None,
                        };
                        UpstreamBody::new(body, lease, plan.guarded)
                    }));
                }
                Err(Broken::Returned(back, _)) if reused => request = *back,
                Err(Broken::Returned(back, error)) => {
                    state.failed();
                    let error = SendError::NeverSent(Unsent::Closed(error));
                    return Err(Failed { error, request: Some(*back) });
                }
                Err(Broken::Unsent(unsent)) => match again.and_then(Again::request) {
                    Some(again) => (request, fresh) = (again, true),
                    None => return Err(Failed { error: SendError::NeverSent(unsent), request: None }),
                },
                Err(Broken::Lost { error, unheard }) => {
                    let broke = !error.is_user() && !error::is_malformed(&error);
                    if !reused && broke {
                        state.failed();
                    }
                    // A used connection that broke before it said anything was most likely closed while it was idle.
                    match again.filter(|_| broke && unheard).and_then(Again::request) {
                        Some(again) => (request, fresh) = (again, true),
                        None => return Err(Failed { error: SendError::Lost(error.into()), request: None }),
                    }
                }
            }
        }
    }

    async fn connection(
        &self,
        endpoint: usize,
        state: &Endpoint,
        plan: Plan,
        fresh: bool,
    ) -> Result<Connection, Unsent> {
        let idle_max = if plan.guarded { self.settings.max_idle_guarded } else { Duration::MAX };
        let http2 = self.settings.http2 && !state.is_http1_only();
        let want = Want { endpoint, worker: plan.worker, idle_max, fresh, http2 };
        match self.pool.acquire(want).await.ok_or(Unsent::QueueTimeout)? {
            Grant::Idle(connection) => Ok(Connection::Exclusive(connection)),
            Grant::Stream(stream) => Ok(Connection::Stream(stream)),
            Grant::Slot(slot) => {
                let _turn = if http2 {
                    // Those who wait in vain do not each try in turn: the one who tries speaks for all.
                    let turn = timeout(self.settings.connect_timeout, self.pool.connecting(plan.worker)).await;
                    Some(turn.map_err(|_| Unsent::ConnectTimeout)?)
                } else {
                    None
                };
                if http2
                    && !fresh
                    && let Some(stream) = self.pool.stream(&want)
                {
                    // Somebody made a connection in the meantime.
                    return Ok(Connection::Stream(stream));
                }
                let tls = self.tls.load_full();
                let wire = connect::dial(&self.settings, endpoint, tls.as_deref(), slot).await?;
                let (pool, id) = (Arc::downgrade(&self.pool), self.pool.next_id());
                let home = Home { pool, endpoint, worker: plan.worker, id };
                if http2 && (tls.is_none() || wire.chose_http2()) {
                    let shared = Multiplexed::open_connection(wire, home).await.map_err(Unsent::Closed)?;
                    let stream = shared.open(&self.pool, Duration::MAX, crate::clock::now());
                    self.pool.share(shared);
                    stream.map(Connection::Stream).ok_or(Unsent::QueueTimeout)
                } else {
                    if http2 {
                        state.set_http1_only();
                    }
                    Ok(Connection::Exclusive(Exclusive::open(wire, home).await.map_err(Unsent::Closed)?))
                }
            }
        }
    }
}

impl Connection {
    fn is_reused(&self) -> bool {
        match self {
            Self::Exclusive(connection) => connection.is_reused(),
            Self::Stream(stream) => stream.is_reused(),
        }
    }

    /// Sends the request and waits for the answer's head. The connection comes back unless it became a tunnel.
    async fn exchange(
        self,
        mut request: Request<Outgoing>,
        url: &settled::UpstreamUrl,
    ) -> Result<(Response<Incoming>, Option<Self>), Broken> {
        match self {
            Self::Exclusive(mut connection) => {
                for_http1(&mut request);
                let evidence = Arc::clone(connection.evidence());
                request.body_mut().watched_by(&evidence);
                let mark = evidence.mark();
                evidence.expect_answer();
                match connection.sender().try_send_request(request).await {
                    Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                        connection.detach();
                        Ok((response, None))
                    }
                    Ok(response) => Ok((response, Some(Self::Exclusive(connection)))),
                    Err(mut error) => Err(match error.take_message() {
                        Some(request) => Broken::Returned(Box::new(request), error.into_error()),
                        None if evidence.seal_unwritten(mark) => Broken::Unsent(error.into_error().into()),
                        None => Broken::Lost { error: error.into_error(), unheard: evidence.unheard(mark) },
                    }),
                }
            }
            Self::Stream(mut stream) => {
                for_http2(&mut request, url);
                let mark = stream.evidence().mark();
                match stream.sender().try_send_request(request).await {
                    Ok(response) => Ok((response, Some(Self::Stream(stream)))),
                    Err(mut error) => Err(match error.take_message() {
                        Some(request) => Broken::Returned(Box::new(request), error.into_error()),
                        None if is_refused(error.error()) => Broken::Unsent(Unsent::Refused(error.into_error())),
                        None => Broken::Lost { error: error.into_error(), unheard: stream.evidence().unheard(mark) },
                    }),
                }
            }
        }
    }
}

/// Whether the upstream said that it did not process the stream: REFUSED_STREAM, or a GOAWAY whose last id is below the
/// stream's (RFC 9113 s8.7). h2 reports a remote GOAWAY to exactly those streams; the others end with an I/O error.
fn is_refused(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = error.source();
    }
    false
}

/// What an idempotent request is sent from once more.
struct Again {
    head: request::Parts,
    body: RequestBodyAgain,
}

impl Again {
    fn of(request: &mut Request<Outgoing>) -> Self {
        let body = request.body_mut().spare();
        let (mut head, ()) = Request::new(()).into_parts();
        head.method.clone_from(request.method());
        head.uri.clone_from(request.uri());
        head.version = request.version();
        head.headers.clone_from(request.headers());
        head.extensions.clone_from(request.extensions());
        Self { head, body }
    }

    /// The request, if none of its body was read.
    fn request(self) -> Option<Request<Outgoing>> {
        Some(Request::from_parts(self.head, Outgoing::new(self.body.take_back()?)))
    }
}

/// A target in origin form, a Host field, and framing where hyper would say nothing. Of an absent body it does, which some
/// upstreams refuse of a POST with 411 (RFC 9110 s8.6). Of a GET's body whose length is unknown it does too, and drops it.
fn for_http1(request: &mut Request<Outgoing>) {
    *request.version_mut() = Version::HTTP_11;
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.body().is_end_stream()
        && request.body().size_hint().exact().is_none()
    {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) && request.body().is_end_stream() {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    if let Some(authority) = request.uri().authority() {
        // It was made ready for HTTP/2, and came back.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            request.headers_mut().entry(HOST).or_insert(host);
        }
        if let Some(target) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = target.into();
        }
    }
}

/// `:scheme` and `:authority` in place of the Host field (RFC 9113 s8.3.1).
fn for_http2(request: &mut Request<Outgoing>, url: &settled::UpstreamUrl) {
    *request.version_mut() = Version::HTTP_2;
    // It may have been made ready for HTTP/1.1, and come back.
    request.headers_mut().remove(TRANSFER_ENCODING);
    if request.uri().authority().is_some() {
        return;
    }
    let host = request.headers_mut().remove(HOST);
    let authority = host.as_ref().and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    let mut parts = uri::Parts::from(std::mem::take(request.uri_mut()));
    parts.scheme = Some(if url.tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.authority = authority.or_else(|| url.authority.parse().ok());
    parts.path_and_query.get_or_insert(uri::PathAndQuery::from_static("/"));
    if let Ok(target) = Uri::from_parts(parts) {
        *request.uri_mut() = target;
    }
}
