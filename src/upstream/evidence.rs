//! What was handed to the kernel, as evidence of what was sent.
//!
//! [`Socket`] sits below TLS and HTTP and counts. An error of the layers above says that an exchange failed; only the
//! count says whether the upstream can have seen any of it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::pool::Slot;

/// What a connection's socket did.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    written: Mutex<Written>,
    received: AtomicU64,
    body_open: AtomicBool,
    answer_due: AtomicBool,
}

#[derive(Debug, Default)]
struct Written {
    /// Bytes that the kernel took.
    handed: u64,
    /// The last write was not taken whole: something still waits to be written.
    stalled: bool,
    /// Nothing is written any more.
    sealed: bool,
}

/// Where the counts stood when a request was dispatched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    handed: u64,
    received: u64,
}

impl Evidence {
    /// Where the counts stand. Taken before a request is dispatched.
    pub(super) fn mark(&self) -> Mark {
        Mark { handed: self.written().handed, received: self.received.load(Ordering::Acquire) }
    }

    /// Ends all writing, then says whether nothing was written since the mark.
    ///
    /// The order is the point: hyper reports a failed exchange before it lets go of the socket, and could still flush
    /// what it holds after a count that was merely read.
    pub(super) fn seal_unwritten(&self, mark: Mark) -> bool {
        let mut written = self.written();
        written.sealed = true;
        written.handed == mark.handed
    }

    /// Whether nothing was received since the mark.
    pub(super) fn unheard(&self, mark: Mark) -> bool {
        self.received.load(Ordering::Acquire) == mark.received
    }

    /// Counts what the layer of HTTP received: below TLS, an alert or a ticket would look like an answer.
    pub(super) fn heard(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// Says that an HTTP/1.1 request is about to be dispatched: the next bytes begin an answer's head.
    pub(super) fn expect_answer(&self) {
        self.answer_due.store(true, Ordering::Release);
    }

    /// Whether a request was dispatched since this was last asked.
    pub(super) fn take_answer_due(&self) -> bool {
        self.answer_due.load(Ordering::Relaxed) && self.answer_due.swap(false, Ordering::AcqRel)
    }

    /// Says that a streamed request body has begun (`true`), or has wholly been read by hyper (`false`).
    pub(super) fn set_body_open(&self, open: bool) {
        self.body_open.store(open, Ordering::Release);
    }

    /// Whether the request went out whole. If it did not, an answer that is already here came early, and the
    /// connection is in the middle of a message.
    pub(super) fn request_done(&self) -> bool {
        !self.body_open.load(Ordering::Acquire) && !self.written().stalled
    }

    // A std mutex, held for one non-blocking system call, and contended only by `seal_unwritten`.
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, length: usize, write: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut written = self.written();
        if written.sealed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let result = write();
        match &result {
            Poll::Pending => written.stalled = true,
            Poll::Ready(Ok(taken)) => {
                written.handed += *taken as u64;
                written.stalled = *taken < length;
            }
            // What was to be written is not written, and never will be.
            Poll::Ready(Err(_)) => written.stalled = true,
        }
        result
    }
}

/// A connected socket that counts, and that gives its place in the pool free when it closes.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    evidence: Arc<Evidence>,
    slot: Arc<Slot>,
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) fn new(stream: Stream, slot: Arc<Slot>) -> Self {
        Self { stream, evidence: Arc::default(), slot }
    }

    pub(super) fn evidence(&self) -> &Arc<Evidence> {
        &self.evidence
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.slot.free();
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, evidence, .. } = &mut *self;
        evidence.write(buf.len(), || match stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, evidence, .. } = &mut *self;
        evidence.write(bufs.iter().map(|buf| buf.len()).sum(), || match stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        })
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_connection_writes_no_more() {
        let evidence = Evidence::default();
        let mark = evidence.mark();
        assert!(evidence.seal_unwritten(mark));
        let late = evidence.write(4, || unreachable!("nothing reaches the kernel"));
        assert!(matches!(late, Poll::Ready(Err(_))));
    }

    #[test]
    fn a_single_byte_that_the_kernel_took_is_evidence() {
        let evidence = Evidence::default();
        let mark = evidence.mark();
        assert!(evidence.write(4, || Poll::Ready(Ok(1))).is_ready());
        assert!(!evidence.request_done(), "three bytes still wait");
        assert!(!evidence.seal_unwritten(mark));
    }

    #[test]
    fn a_write_that_the_kernel_did_not_take_is_none() {
        let evidence = Evidence::default();
        let mark = evidence.mark();
        assert!(evidence.write(4, || Poll::Pending).is_pending());
        assert!(evidence.write(4, || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))).is_ready());
        assert!(evidence.seal_unwritten(mark));
    }
}
