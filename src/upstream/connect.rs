//! From an url to a connected wire: name look-up, TCP or a unix socket, TLS.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    error::Unsent,
    evidence::{Socket, Stream},
    pool::Slot,
    tls::Tls,
    wire::Wire,
};
use crate::{
    config::settled::{Upstream, UpstreamTarget},
    tcp,
};

/// How long one address may take before the next is tried beside it (RFC 8305 s5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Connects to one url within `connect_timeout`, all steps together.
///
/// # Cancel safety
///
/// Dropping the future closes what was opened, and frees the slot.
pub(super) async fn dial(
    upstream: &Upstream,
    endpoint: usize,
    tls: Option<&Tls>,
    slot: Arc<Slot>,
) -> Result<Wire, Unsent> {
    timeout(upstream.connect_timeout, async {
        let stream = match &upstream.urls[endpoint].target {
            UpstreamTarget::Tcp(host, port) => Stream::Tcp(tcp(host, *port).await?),
            UpstreamTarget::Unix(path) => Stream::Unix(UnixStream::connect(path).await.map_err(Unsent::Connect)?),
        };
        let socket = Socket::new(stream, slot);
        match tls.and_then(|tls| Some((tls, tls.names[endpoint].clone()?))) {
            None => Ok(Wire::Plain(socket)),
            Some((tls, name)) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(name, socket).await.map_err(Unsent::Tls)?;
                Ok(Wire::Tls(Box::new(stream)))
            }
        }
    })
    .await
    .unwrap_or(Err(Unsent::ConnectTimeout))
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Unsent> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(Unsent::NameLookup)?.collect();
    let stream = match addresses.as_slice() {
        [] => return Err(Unsent::NameLookup(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        [address] => TcpStream::connect(address).await,
        several => race(several).await,
    }
    .map_err(Unsent::Connect)?;
    stream.set_nodelay(true).map_err(Unsent::Connect)?;
    tcp::keep_alive(&stream).map_err(Unsent::Connect)?;
    Ok(stream)
}

/// Tries the addresses in the resolver's order, the next one when the last has failed or is slow; the first to connect
/// wins.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter().copied();
    let mut running = JoinSet::new();
    let mut failure = None;
    loop {
        if let Some(address) = left.next() {
            running.spawn(TcpStream::connect(address));
        }
        tokio::select! {
            biased;
            ended = running.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => failure = Some(error),
                Some(Err(error)) => failure = Some(error.into()),
                None => return Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
            },
            () = sleep(NEXT_ADDRESS_AFTER), if left.len() > 0 => {}
        }
    }
}
