//! One connection from its accept to its end, and the count of them all.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    Connection, Handler, Limits, Tls, http1, http2,
    proxy_protocol::{self, Header},
    pulse::Pulse,
    sniff::{Sniffed, sniff},
    stream::Stream,
    tls,
    turned_away::{Teller, TurnedAway},
};
use crate::clock;

/// Connections of all workers.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    /// Open connections of each client; of none without.
    clients: Mutex<HashMap<IpAddr, usize>>,
    turned_away: AtomicU64,
    leaving: AtomicUsize,
    teller: Teller,
}

impl Connections {
    /// Connections from clients that are open now, tunnels included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections that were turned away since the start, whatever for.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Relaxed)
    }

    fn note(&self, why: TurnedAway, peer: Option<SocketAddr>, detail: &dyn fmt::Display, handler: &impl Handler) {
        self.turned_away.fetch_add(1, Relaxed);
        self.teller.tell(why, peer, detail);
        handler.turned_away(why);
    }
}

/// The right to one connection, until it is dropped. It is dropped with the transport, so that a tunnel counts although
/// its HTTP connection has ended.
pub(super) struct Permit {
    connections: Arc<Connections>,
    /// Which client's it is.
    client: Option<IpAddr>,
    _worker: TaskTrackerToken,
}

impl Permit {
    pub(super) fn take(connections: &Arc<Connections>, max: usize, worker: TaskTrackerToken) -> Option<Self> {
        let before = connections.open.fetch_add(1, Relaxed);
        // Made before the comparison, so that being over the limit gives the place back.
        let permit = Self { connections: Arc::clone(connections), client: None, _worker: worker };
        (before < max).then_some(permit)
    }

    /// Counts the connection as this client's. Whether the client may have it.
    fn is_clients(&mut self, address: IpAddr, max: Option<usize>) -> bool {
        debug_assert!(self.client.is_none(), "a connection is one client's");
        let client = client_of(address);
        // Counted without a limit too, so that one that a reload brings knows of the connections before it.
        let mut clients = self.connections.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let open = clients.get(&client).copied().unwrap_or(0);
        if max.is_some_and(|max| open >= max) {
            return false;
        }
        clients.insert(client, open + 1);
        drop(clients);
        self.client = Some(client);
        true
    }
}

/// Whom connections are counted for: an IPv4 address, or the IPv6 network that a site is given at the least, within which
/// it may choose addresses as it likes (RFC 6177 s2).
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Relaxed);
        let Some(client) = self.client else { return };
        let mut clients = self.connections.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = clients.entry(client) {
            if *open.get() > 1 {
                *open.get_mut() -= 1;
            } else {
                open.remove();
            }
        }
    }
}

/// A connection whose protocol is known, with what it takes to serve it.
pub(super) struct Session<H> {
    pub(super) stream: Stream,
    /// What was read to tell the protocol.
    pub(super) sniffed: Vec<u8>,
    pub(super) permit: Permit,
    pub(super) handler: H,
    pub(super) connection: Arc<Connection>,
    pub(super) limits: Arc<Limits>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) stop: CancellationToken,
}

/// Serves one connection to its end. What goes wrong with it concerns its client alone.
pub(super) async fn serve<H: Handler>(
    mut stream: Stream,
    mut permit: Permit,
    handler: H,
    tls: Option<Arc<Tls>>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    let pulse = Arc::new(Pulse::new(clock::now()));
    let due = pulse.start() + limits.header_timeout;
    if limits.proxy_protocol && limits.is_proxy(stream.ends.peer) {
        let naming = name_client(&mut stream, &permit.connections, &handler, due);
        // Boxed: few have it, and every connection's task would be as large.
        if stop.run_until_cancelled(Box::pin(naming)).await != Some(true) {
            return;
        }
    }
    if let Some(peer) = stream.ends.peer
        && !limits.is_proxy(Some(peer))
        && !permit.is_clients(peer.ip(), limits.max_connections_per_address)
    {
        let why = TurnedAway::MaxConnectionsPerAddress;
        return turn_away(stream, why, tls.is_some(), &permit.connections, &handler);
    }
    let (peer, over_tls) = (stream.ends.peer, tls.is_some());
    let no_handshake = |detail: &dyn fmt::Display| {
        let why = TurnedAway::TlsHandshake;
        permit.connections.note(why, peer, &format_args!("{}: {detail}", why.detail()), &handler);
    };
    let opening = timeout_at(due, open(stream, tls));
    // Until its protocol is known, nothing was asked of us: a drain need not wait for it, nor a late client be told.
    let (mut stream, sniffed) = match stop.run_until_cancelled(opening).await {
        Some(Ok(Ok(opened))) => opened,
        Some(Ok(Err(error))) => {
            if over_tls && !has_left(&error) {
                no_handshake(&error);
            }
            return ended_early(&error);
        }
        Some(Err(_late)) => {
            if over_tls {
                no_handshake(&"it is late");
            }
            return;
        }
        None => return,
    };
    let http2 = matches!(sniffed, Sniffed::Http2(_));
    let (Sniffed::Http1(sniffed) | Sniffed::Http2(sniffed)) = sniffed else { return };
    let connection = Arc::new(Connection { http2, ..std::mem::take(&mut stream.ends) });
    let session = Session { stream, sniffed, permit, handler, connection, limits, pulse, stop };
    let ended = if http2 {
        // Larger by far, and rarer: it need not make every connection's task as large.
        Box::pin(http2::serve(session)).await
    } else {
        http1::serve(session).await
    };
    if let Err(error) = ended {
        ended_early(&error);
    }
}

/// Reads the PROXY header, and takes it for the connection's ends. Whether the connection is to be served.
async fn name_client(stream: &mut Stream, connections: &Connections, handler: &impl Handler, due: Instant) -> bool {
    let mut read = Vec::new();
    let header = match timeout_at(due, proxy_protocol::read(stream, &mut read)).await {
        Ok(Ok(header)) => header,
        // Nobody asked for anything: a look at whether we are there, or a connection that was opened in advance.
        Ok(Err(_)) | Err(_) if read.is_empty() => return false,
        Ok(Err(error)) => {
            let why = TurnedAway::ProxyHeader;
            let detail = format_args!("{}: {error}", why.detail());
            connections.note(why, stream.ends.peer, &detail, handler);
            return false;
        }
        Err(_late) => {
            let why = TurnedAway::ProxyHeader;
            connections.note(why, stream.ends.peer, &format_args!("{}: it is late", why.detail()), handler);
            return false;
        }
    };
    if let Header::Named { client, local } = header {
        (stream.ends.peer, stream.ends.local) = (Some(client), Some(local));
    }
    stream.put_back(read);
    true
}

/// Finds out which protocol is spoken: by ALPN within TLS, by the first bytes without.
async fn open(mut stream: Stream, tls: Option<Arc<Tls>>) -> io::Result<(Stream, Sniffed)> {
    let Some(tls) = tls else {
        let sniffed = sniff(&mut stream).await?;
        return Ok((stream, sniffed));
    };
    let stream = tls.handshake(stream).await?;
    let agreed = if tls::speaks_http2(&stream) { Sniffed::Http2(Vec::new()) } else { Sniffed::Http1(Vec::new()) };
    Ok((Stream::tls(stream), agreed))
}

/// Whether a handshake failed for no other reason than that its client went: many a health check does no more.
fn has_left(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn ended_early(error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(error, "a client's connection ended early");
}

/// Clients beyond the limit that are told so at the same time; more of them are closed unheard.
const LEAVING_MAX: usize = 64;
/// For a client to send what it has and to take the answer.
const LEAVING_TIME: Duration = Duration::from_secs(1);
/// What is said to a client beyond the limit.
const FULL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\n",
    "content-type: application/problem+json\r\n",
    "content-length: 266\r\n",
    "retry-after: 1\r\n",
    "connection: close\r\n",
    "\r\n",
    r#"{"type":"urn:oncegate:problem:overloaded","title":"Too many requests are under way","status":503,"#,
    r#""detail":"This request was not sent on, since too many connections are open; it is safe to repeat with the "#,
    r#"same key.","code":"overloaded","executed":"no","retry":"safe"}"#,
);

/// Tells a client that there is no room for its connection, without a place of its own.
pub(super) fn turn_away(
    stream: Stream,
    why: TurnedAway,
    tls: bool,
    connections: &Arc<Connections>,
    handler: &impl Handler,
) {
    connections.note(why, stream.ends.peer, &why.detail(), handler);
    if tls {
        // It would understand nothing before a handshake, which costs more than what the limit is to save.
        return;
    }
    if connections.leaving.fetch_add(1, Relaxed) >= LEAVING_MAX {
        connections.leaving.fetch_sub(1, Relaxed);
        return;
    }
    let connections = Arc::clone(connections);
    tokio::spawn(async move {
        // Neither a client that takes nothing nor one that is gone already matters to anybody else.
        let _ = timeout(LEAVING_TIME, say_full(stream)).await;
        connections.leaving.fetch_sub(1, Relaxed);
    });
}

async fn say_full(mut stream: Stream) -> io::Result<()> {
    stream.write_all(FULL.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing over unread bytes would reset the connection and could take the answer with it.
    let mut discarded = [0; 1024];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    #[test]
    fn clients_are_remembered_while_they_have_connections() {
        let (connections, worker) = (Arc::new(Connections::default()), TaskTracker::new());
        let take = |address: &str, max| {
            let mut permit = Permit::take(&connections, usize::MAX, worker.token()).unwrap();
            permit.is_clients(address.parse().unwrap(), max).then_some(permit)
        };
        let first = take("203.0.113.9", Some(2));
        let second = take("::ffff:203.0.113.9", Some(2));
        assert!(first.is_some() && second.is_some());
        assert!(take("203.0.113.9", Some(2)).is_none(), "the same address");
        let beyond = take("203.0.113.9", None);
        assert!(beyond.is_some(), "no limit");
        let other = take("203.0.113.10", Some(2));
        assert!(other.is_some(), "another address");
        drop((first, beyond));
        assert!(take("203.0.113.9", Some(2)).is_some(), "room again");

        let site = take("2001:db8:0:1::1", Some(1));
        assert!(site.is_some());
        assert!(take("2001:db8:0:1:ffff::2", Some(1)).is_none(), "the same network of 64 bits");
        assert!(take("2001:db8:0:2::1", Some(1)).is_some(), "another one");
        assert_eq!(connections.clients.lock().unwrap().len(), 3);
        drop((second, other, site));
        assert_eq!((connections.clients.lock().unwrap().len(), connections.open()), (0, 0));
    }

    #[test]
    fn the_answer_to_a_connection_too_many_is_framed_right() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
