//! The transport as hyper sees it: reads pass an [`Inlet`], writes are watched, and closing waits for the client to hear
//! the answer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{connection::Permit, interim::Line, pulse::Pulse, stream::Stream};

/// What stands between the transport's bytes and hyper.
pub(super) trait Inlet: Unpin {
    /// Reads from `stream` what may go on, as [`AsyncRead::poll_read`] does.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        pulse: &Pulse,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;
}

/// A transport that stamps its [`Pulse`].
pub(super) struct Wire<I> {
    stream: Stream,
    inlet: I,
    pulse: Arc<Pulse>,
    /// Interim answers that wait to be written.
    interim: Option<Arc<Line>>,
    /// What is left of those whose writing has begun. Nothing else is written before it.
    begun: Bytes,
    /// The client's side is closed.
    client_closed: bool,
    end: End,
    /// How long the client of a tunnel may take nothing of what is written to it.
    write_timeout: Duration,
    /// Runs while the client of a tunnel takes nothing. HTTP's connection, which watches the time of everything else,
    /// has ended then.
    tunnel_stalled: Option<Pin<Box<Sleep>>>,
    _permit: Permit,
}

/// How far the closing is (RFC 9112 s9.6).
enum End {
    /// Open, or shutting down our side.
    Open,
    /// Our side is closed; what still comes is thrown away.
    Lingering,
    /// Nothing is left to wait for.
    Over,
}

/// Bytes of an upload that nobody wants any more, in one read.
const DISCARDED_AT_ONCE: usize = 16 * 1024;

impl<I> Wire<I> {
    pub(super) const fn new(
        stream: Stream,
        inlet: I,
        pulse: Arc<Pulse>,
        interim: Option<Arc<Line>>,
        write_timeout: Duration,
        permit: Permit,
    ) -> Self {
        Self {
            stream,
            inlet,
            pulse,
            interim,
            begun: Bytes::new(),
            client_closed: false,
            end: End::Open,
            write_timeout,
            tunnel_stalled: None,
            _permit: permit,
        }
    }

    /// The same of a write, which moves bytes where a flush may move none.
    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.pulse.moved();
        }
        self.watched(written, cx)
    }

    /// Takes note of whether a write found room, and gives it up where it has waited for too long.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.pulse.write_waits(written.is_pending());
        if written.is_ready() {
            self.tunnel_stalled = None;
            return written;
        }
        if !self.pulse.is_tunnel() {
            return written;
        }
        let stalled = self.tunnel_stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I> Wire<I> {
    /// Writes what is left of interim answers.
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.begun);
            match ready!(self.watched(written, cx))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.begun.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Drop for Wire<I> {
    fn drop(&mut self) {
        if self.pulse.is_answer_cut() {
            self.stream.reset_on_close();
        }
    }
}

impl<I: Inlet> AsyncRead for Wire<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.inlet.poll_read(&mut this.stream, &this.pulse, cx, buf))?;
        if buf.filled().len() == before {
            this.client_closed = true;
        } else {
            this.pulse.moved();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: Inlet> AsyncWrite for Wire<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(cx))?;
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_begun(cx))?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_begun(cx))?;
        // hyper flushes only when it has written all, which is when it has been given no answer to the request under way:
        // it is between messages.
        if let Some(bytes) = this.interim.as_ref().and_then(|line| line.take(cx)) {
            this.begun = bytes.into();
            ready!(this.poll_begun(cx))?;
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        // TLS may hold some of it back until the client takes it.
        this.watched(flushed, cx)
    }

    /// Closes our side, then reads until the client closes its own. Closing over unread bytes would reset the connection,
    /// and a reset takes answers with it that the client has not read yet; a client may write all of its upload before it
    /// reads. The time is the connection's deadline to bound.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.end {
                End::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    if this.client_closed {
                        this.end = End::Over;
                        continue;
                    }
                    this.pulse.linger_begun();
                    this.end = End::Lingering;
                }
                End::Lingering => {
                    let mut scratch = [0; DISCARDED_AT_ONCE];
                    let mut scratch = ReadBuf::new(&mut scratch);
                    // An error says that the client is gone, which is what was waited for.
                    let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut scratch));
                    if read.is_ok() && !scratch.filled().is_empty() {
                        this.pulse.linger_on();
                    } else {
                        this.end = End::Over;
                    }
                }
                End::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}
