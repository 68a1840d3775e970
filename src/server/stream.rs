//! The transports that clients come on, as one type: the protocol code above is compiled once.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::server::TlsStream;

use super::{Connection, tls};

/// An accepted connection.
pub(super) struct Stream {
    kind: Kind,
    /// What was read and is to be read again.
    ahead: Bytes,
    /// Who is at its ends.
    pub(super) ends: Connection,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    pub(super) fn tcp(stream: TcpStream, peer: SocketAddr) -> Self {
        // Fails only on a connection that is already gone, which the first read finds out.
        let _ = stream.set_nodelay(true);
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let local = stream.local_addr().ok().map(canonical);
        let ends = Connection { peer: Some(canonical(peer)), local, ..Connection::default() };
        Self { kind: Kind::Tcp(stream), ahead: Bytes::new(), ends }
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { kind: Kind::Unix(stream), ahead: Bytes::new(), ends: Connection::default() }
    }

    /// The same connection, with TLS spoken on it.
    pub(super) fn tls(mut stream: TlsStream<Self>) -> Self {
        let ends = std::mem::take(&mut stream.get_mut().0.ends);
        let ends = Connection { tls: true, tls_subject: tls::subject(&stream), ..ends };
        Self { kind: Kind::Tls(Box::new(stream)), ahead: Bytes::new(), ends }
    }

    /// Gives back what was read too much: it is what is read next.
    pub(super) fn put_back(&mut self, mut bytes: Vec<u8>) {
        // Some of what was put back before may not have been read yet.
        bytes.extend_from_slice(&self.ahead);
        self.ahead = bytes.into();
    }
}

impl Stream {
    /// Has the connection reset when it is closed: a client then knows that what it has is not all.
    pub(super) fn reset_on_close(&self) {
        match &self.kind {
            // Fails only on a connection that is gone already.
            Kind::Tcp(stream) => _ = SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            // A Unix socket knows no reset.
            Kind::Unix(_) => {}
            Kind::Tls(stream) => stream.get_ref().0.reset_on_close(),
        }
    }
}

macro_rules! each {
    ($this:expr, $stream:ident => $call:expr) => {
        match &mut $this.kind {
            Kind::Tcp($stream) => $call,
            Kind::Unix($stream) => $call,
            Kind::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.has_remaining() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        each!(this, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
