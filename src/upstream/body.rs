//! Bodies on their way to and from an upstream.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    balance::Load,
    connection::{Exclusive, Stream},
    error::AnswerBroken,
    evidence::Evidence,
    pool::Pool,
};
use crate::body::{BodyError, RequestBody};

// === to the upstream ===

/// A request's body as hyper is given it: says when it has been read to its end, and can be had back while none of it
/// was read.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Source,
    /// Told when a streamed body has ended; not needed where all of it is handed over at once.
    evidence: Option<Arc<Evidence>>,
    /// Bytes still to come, where that is known: hyper does not ask again after the last one.
    left: Option<u64>,
}

#[derive(Debug)]
enum Source {
    Own(RequestBody),
    Shared(Arc<Spare>),
}

/// A streamed body that hyper has, and that can be taken back from it.
#[derive(Debug)]
pub(super) struct Spare(Mutex<Unread>);

#[derive(Debug)]
struct Unread {
    body: Option<RequestBody>,
    read: bool,
}

impl Spare {
    /// The body, if none of it was read. Whoever has it still gets an error from then on.
    pub(super) fn take_back(&self) -> Option<RequestBody> {
        let mut unread = self.lock();
        if unread.read { None } else { unread.body.take() }
    }

    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    pub(super) fn new(body: RequestBody) -> Self {
        Self { left: body.size_hint().exact(), body: Source::Own(body), evidence: None }
    }

    /// Tells `evidence` when the body has ended.
    pub(super) fn watched_by(&mut self, evidence: &Arc<Evidence>) {
        let streamed = match &self.body {
            Source::Own(RequestBody::Full(_)) => false,
            Source::Own(RequestBody::Stream(_)) | Source::Shared(_) => !self.is_end_stream(),
        };
        evidence.set_body_open(streamed);
        self.evidence = streamed.then(|| Arc::clone(evidence));
    }

    /// The same body once more, if it can be had while none of it was read.
    pub(super) fn spare(&mut self) -> RequestBodyAgain {
        match &mut self.body {
            Source::Own(RequestBody::Full(bytes)) => RequestBodyAgain::Full(bytes.clone()),
            Source::Own(body @ RequestBody::Stream(_)) => {
                let body = std::mem::replace(body, RequestBody::empty());
                let spare = Arc::new(Spare(Mutex::new(Unread { body: Some(body), read: false })));
                self.body = Source::Shared(Arc::clone(&spare));
                RequestBodyAgain::Stream(spare)
            }
            Source::Shared(spare) => RequestBodyAgain::Stream(Arc::clone(spare)),
        }
    }

    fn ended(&mut self) {
        if let Some(evidence) = self.evidence.take() {
            evidence.set_body_open(false);
        }
    }
}

/// What a request's body can be had from once more.
#[derive(Debug)]
pub(super) enum RequestBodyAgain {
    /// It is kept in memory.
    Full(Option<Bytes>),
    /// It can be taken back.
    Stream(Arc<Spare>),
}

impl RequestBodyAgain {
    pub(super) fn take_back(self) -> Option<RequestBody> {
        match self {
            Self::Full(bytes) => Some(RequestBody::Full(bytes)),
            Self::Stream(spare) => spare.take_back(),
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.body {
            Source::Own(body) => ready!(Pin::new(body).poll_frame(cx)),
            Source::Shared(spare) => {
                let mut unread = spare.lock();
                let Some(body) = &mut unread.body else { return Poll::Ready(Some(Err(BodyError::Incomplete(None)))) };
                let frame = ready!(Pin::new(body).poll_frame(cx));
                unread.read = true;
                frame
            }
        };
        if let Some(Ok(frame)) = &frame
            && let (Some(data), Some(left)) = (frame.data_ref(), &mut self.left)
        {
            *left = left.saturating_sub(data.len() as u64);
        }
        match &frame {
            Some(Err(_)) => {}
            Some(Ok(frame)) if self.left == Some(0) || frame.is_trailers() || self.is_end_stream() => self.ended(),
            Some(Ok(_)) => {}
            None => self.ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Own(body) => body.is_end_stream(),
            Source::Shared(spare) => spare.lock().body.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Own(body) => body.size_hint(),
            Source::Shared(spare) => spare.lock().body.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}

// === from the upstream ===

/// An answer's body.
///
/// Read to its end, it gives its connection back to the pool. Dropped before, it closes the connection (HTTP/2: resets
/// the stream). An error means that the answer is not whole.
///
/// hyper ends a body without an error, too, where its HTTP/2 stream is reset with NO_ERROR. Half an answer taken for a whole
/// one would be kept.
pub struct UpstreamBody {
    body: Incoming,
    lease: Option<Lease>,
    /// Of a guarded request.
    guarded: bool,
}

/// What an answer holds until it has ended.
#[derive(Debug)]
pub(super) enum Lease {
    /// An HTTP/1.1 connection.
    Exclusive(Exclusive, Arc<Pool>, Load),
    /// An HTTP/2 stream.
    Stream(Stream, Load),
}

impl Lease {
    fn finish(self) {
        match self {
            Self::Exclusive(connection, pool, _load) => connection.finish(&pool),
            Self::Stream(stream, _load) => drop(stream),
        }
    }
}

impl UpstreamBody {
    pub(super) fn new(body: Incoming, lease: Option<Lease>, guarded: bool) -> Self {
        let mut this = Self { body, lease, guarded };
        if this.body.is_end_stream() {
            this.finish();
        }
        this
    }

    fn finish(&mut self) {
        self.note(false);
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    /// Whether the end that hyper reports is the answer's.
    fn is_whole(&self) -> bool {
        match &self.lease {
            // Whether END_STREAM came; what comes after it changes nothing.
            Some(Lease::Stream(..)) => self.body.is_end_stream(),
            // The latter has ended before.
            Some(Lease::Exclusive(..)) | None => true,
        }
    }

    /// Tells whether the client has something to take, or waits for the upstream.
    fn note(&self, gave: bool) {
        match &self.lease {
            Some(Lease::Exclusive(connection, ..)) if !self.guarded => match connection.taking() {
                Some(taking) if gave => taking.gave(),
                Some(taking) => taking.waits(),
                None => {}
            },
            Some(Lease::Exclusive(..) | Lease::Stream(..)) | None => {}
        }
    }
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("ended", &self.lease.is_none()).finish_non_exhaustive()
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = AnswerBroken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.note(frame.is_ready());
        let frame = ready!(frame);
        match &frame {
            None if self.is_whole() => self.finish(),
            None => {
                self.lease = None;
                return Poll::Ready(Some(Err(AnswerBroken::Cut)));
            }
            // Trailers are the last; with a known length the last data is.
            Some(Ok(frame)) if frame.is_trailers() || self.body.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(AnswerBroken::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
