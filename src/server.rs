//! The downstream side: accepts connections, holds clients to their deadlines, and hands whole request heads to a
//! [`Handler`].
//!
//! What it promises: a handler never sees a request whose framing or target is ambiguous (they are
//! [refused](Handler::refuse) instead), nobody can hold a connection without making progress, and an answer reaches a
//! client that is still sending. What it leaves to others: everything about the request itself. `server` knows neither
//! routes nor keys, and does not import the proxy.
//!
//! One [`serve`] runs on each worker's current-thread runtime, all of them accepting from clones of one [`Listener`].

mod accept;
mod arriving;
mod body_timeout;
mod connection;
mod deadline;
mod exchange;
pub mod forwarded;
mod frames;
pub mod guard;
mod http1;
mod http2;
mod interim;
mod listener;
mod proxy_protocol;
mod pulse;
mod refusal;
mod screen;
mod sniff;
mod stream;
mod tls;
mod turned_away;
pub(crate) mod unix_socket;
mod wire;

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use ipnet::IpNet;

#[cfg(any(test, fuzzing))]
pub(crate) use self::proxy_protocol::hold as proxy_protocol_holds;
pub use self::{
    accept::serve,
    arriving::{Arriving, ArrivingError},
    body_timeout::{TimedBody, TimedBodyError},
    connection::Connections,
    interim::Interim,
    listener::Listener,
    refusal::{Reason, Refusal},
    tls::{Tls, TlsError},
    turned_away::TurnedAway,
};
use crate::config::settled;

/// Answers requests. Cloned for each connection and each request: a clone should cost no more than an `Arc`'s.
///
/// Both futures may be dropped at any await, when the client goes away or resets its stream. An answer given before the
/// request's body was read reaches the client all the same; the connection closes after it.
///
/// A handler that takes hyper's `OnUpgrade` from a request and answers otherwise than with 101 must drop it before: hyper
/// would hand it the connection at its end.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The answer's body.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;

    /// Answers a request whose head obeys every rule of the guard.
    ///
    /// Its body may still break one: then the body ends with an error, in whose chain [`Refusal::of`] finds the reason. It
    /// ends without one where the client ended it, and nowhere else.
    /// With `interim` the client understands interim answers, and they can be sent: it speaks HTTP/1.1.
    fn handle(
        &self,
        request: Request<Arriving>,
        connection: Arc<Connection>,
        interim: Option<Interim>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Answers in place of a request whose head broke a rule: nothing but this refusal is to be said, and the
    /// connection (HTTP/2: the stream) closes after it.
    fn refuse(
        &self,
        refusal: Refusal,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Takes note that a connection was closed before any request on it was looked at. The log has been told.
    fn turned_away(&self, why: TurnedAway);
}

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The client's end, by its PROXY header if it has one; else `None` on a Unix socket. IPv4 addresses are never in
    /// their IPv6-mapped form.
    pub peer: Option<SocketAddr>,
    /// Our end, or, by a PROXY header, that of the proxy before us; else `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Who the client's certificate says it is: `uri:…`, `dns:…`, `subject:…`, or `key:…`, the latter two in
    /// hexadecimal digits of their DER.
    pub tls_subject: Option<Arc<str>>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// How the client is named to upstreams, once somebody asked.
    named: OnceLock<forwarded::Named>,
}

/// What clients are held to. A reload swaps them; connections keep those they began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all workers together. Beyond: 503 and close.
    pub max_connections: usize,
    /// Of them, from one client: an IPv4 address, or an IPv6 network of 64 bits. Proxies before us, and clients on a Unix
    /// socket, have no such limit. Beyond: 503 and close.
    pub max_connections_per_address: Option<usize>,
    /// Bytes of a request's head.
    pub max_head: usize,
    /// Accept, or first byte of a later request, to the whole head; TLS and HTTP/2 handshakes included.
    pub header_timeout: Duration,
    /// Between an answer and the first byte of the next request.
    pub idle_timeout: Duration,
    /// How long a client that had its answer early may go on sending what is thrown away.
    pub linger_timeout: Duration,
    /// How long after its accept a connection is drained; up to a tenth more, so that those that came together do not
    /// leave together. `None` without a limit.
    pub max_connection_age: Option<Duration>,
    /// How long a client may take nothing of an answer that is waiting for it.
    pub write_timeout: Duration,
    /// Whether connections of [`Limits::trusted_proxies`] and those on Unix sockets begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Proxies before us.
    pub trusted_proxies: Vec<IpNet>,
}

impl Limits {
    /// The default of [`Limits::linger_timeout`], which is nginx's: time for an upload of some size to end, so that a
    /// client that reads only after it finds the answer, and a bound on one that never ends.
    pub const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of [`Limits::write_timeout`]: as long as a silent body is waited for by default, and beyond what a
    /// lost packet or a sleeping phone radio costs.
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

    /// Whether this end of a connection is a proxy before us. Who may connect to a Unix socket is for its mode to say.
    fn is_proxy(&self, peer: Option<SocketAddr>) -> bool {
        peer.is_none_or(|peer| self.trusted_proxies.iter().any(|network| network.contains(&peer.ip())))
    }
}

impl From<&settled::Server> for Limits {
    fn from(server: &settled::Server) -> Self {
        Self {
            max_connections: server.max_connections,
            max_connections_per_address: server.max_connections_per_address,
            max_head: server.max_head,
            header_timeout: server.header_timeout,
            idle_timeout: server.idle_timeout,
            linger_timeout: Self::LINGER_TIMEOUT,
            max_connection_age: server.max_connection_age,
            write_timeout: Self::WRITE_TIMEOUT,
            proxy_protocol: server.proxy_protocol,
            trusted_proxies: server.trusted_proxies.clone(),
        }
    }
}

/// What the workers of one listener share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What clients are held to; looked at once for each connection.
    pub limits: Arc<ArcSwap<Limits>>,
    /// TLS, if clients are to speak it.
    pub tls: Option<Arc<Tls>>,
    /// Counts the connections of all workers.
    pub connections: Arc<Connections>,
}
